"""What VQAv2 and VizWiz share: a test split whose labels are a server's, and a val split scored here."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from llava.eval.benchmark import Answer, Benchmark, NotScoredError, Question, percent
from llava.eval.reading import AnswersFile, extra_keys, read_question_lines, require_fields
from llava.eval.vqa_text import normalize_answer, official_accuracy


class Annotation(NamedTuple):
    """What people answered to one question of val."""

    answers: tuple[str, ...]
    answer_type: str
    """yes/no, number, other or unanswerable; "" where the annotations don't say."""


class HiddenTestBenchmark(Benchmark):
    """An open-ended benchmark with the official VQA accuracy.

    Without a split: test where its question file lies, else val; answers are scored on the split they belong
    to.
    """

    headline = "accuracy"
    skips_bad_lines = True
    test_split: str
    """Name of the hidden split; its label is `<name>-<test_split>`, the other one's `<name>-val`."""
    test_questions: str
    """LLaVA's question file of the hidden split."""
    test_images: str
    """Folder of its images."""
    val_annotations: tuple[str, ...]
    """Names that the official file with the answers of val may have; the first that is there is read."""
    server: str
    """Where a submission is uploaded."""

    def __init__(self, split: str | None = None) -> None:
        self.split = split

    def of_split(self, split: str) -> Self:
        if split not in (self.test_split, "val"):
            raise ValueError(f"{self.name} has no split {split!r}; there are {self.test_split} and val")
        return type(self)(split)

    @abstractmethod
    def val_questions(self, folder: Path) -> list[Question]:
        """Read the annotated questions; `gold` is an `Annotation`."""

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        return f"{self.name}-{'val' if is_val(questions) else self.test_split}"

    def questions(self, root: Path) -> list[Question]:
        folder = root / self.folder
        has_test, has_val = self._splits_there(folder)
        if self.split == "val" or (self.split is None and has_val and not has_test):
            return self.val_questions(folder)
        return [
            Question(
                id=line["question_id"],
                text=line["text"],
                image=folder / self.test_images / line["image"],
                gold=None,
                category=line.get("category", "default"),
                extra=extra_keys(line),
            )
            for line in read_question_lines(folder / self.test_questions)
        ]

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Take the split named, else val if one of the answers is to a question of val."""
        folder = root / self.folder
        if self.split is None and answers is not None and all(self._splits_there(folder)):
            questions = self.val_questions(folder)
            ids = {str(question.id) for question in questions}
            if any(str(row["question_id"]) in ids for row in answers.rows):
                return questions
        return self.questions(root)

    def _splits_there(self, folder: Path) -> tuple[bool, bool]:
        """Say whether the files of test are there, and those of val."""
        val = first_there(folder, self.val_annotations)
        return (folder / self.test_questions).exists(), val.exists()

    def gold_text(self, question: Question) -> str:
        return max(question.gold.answers, key=question.gold.answers.count) if question.gold else ""

    def correctness(self, question: Question, answer: str) -> float | None:
        if question.gold is None:
            return None
        return official_accuracy(normalize_answer(answer), question.gold.answers)

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score what a submission would hold with the official evaluator, overall and per type of answer."""
        if not is_val(questions):
            raise NotScoredError(
                f"the labels of {self.name}'s {self.test_split} aren't public: write a submission with "
                f"python -m llava.eval.export {self.name} and upload it to {self.server}. For a local score "
                f"answer the questions of val ({self.folder}/{self.val_annotations[0]})"
            )
        scores: dict[str, list[float]] = {"accuracy": []}
        for question, answer in zip(questions, answers, strict=True):
            submitted = answer.text if answer.row.get("is_submission") else normalize_answer(answer.text)
            score = official_accuracy(submitted, question.gold.answers)
            scores["accuracy"].append(score)
            if question.gold.answer_type:
                scores.setdefault(f"answer_type/{question.gold.answer_type}", []).append(score)
        return {name: percent(values) for name, values in scores.items()}


def first_there(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of these files that exists, the first one where none does."""
    paths = [folder / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def is_val(questions: Sequence[Question]) -> bool:
    """Whether these questions come with answers."""
    return any(question.gold is not None for question in questions)


def summary(texts: Mapping[Any, str], entries: Sequence[Any], answers: AnswersFile) -> str:
    """Return the line that upstream's converters print."""
    return f"total results: {len(texts)}, total split: {len(entries)}, error_line: {len(answers.bad_lines)}"


def read_annotation(path: Path, number: int, entry: Any, fields: Mapping[str, type]) -> Annotation:
    """Check one entry of a file in the VQA family's format and return its answers.

    Args:
        path: the file, for errors.
        number: which entry of it, counted from 1.
        entry: {"answers": [{"answer": ...}, ...], "answer_type": ..., further required keys}.
        fields: what else it must have, and of which type.
    """
    require_fields(entry, f"{path}: entry {number}", {**fields, "answers": list})
    answers = entry["answers"]
    if not (answers and all(isinstance(one, Mapping) for one in answers)):
        raise ValueError(f'{path}: entry {number}: answers must be a list of {{"answer": ...}}')
    texts = tuple(one.get("answer") for one in answers)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path}: entry {number}: every answer must be a string")
    return Annotation(texts, str(entry.get("answer_type", "")))
