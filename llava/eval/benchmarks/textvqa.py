"""TextVQA val: reading text in images, scored by the soft accuracy over ten annotators."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.eval.benchmark import SHORT_ANSWER, Answer, Benchmark, Question, percent
from llava.eval.reading import AnswersFile, extra_keys, read_json, read_question_lines, require_fields
from llava.eval.vqa_text import ANSWERS_PER_QUESTION, soft_accuracy

_ASKED = "llava_textvqa_val_v051_ocr.jsonl"
_OCR_MARKS = ("Reference OCR token:", "OCR tokens: ")


class TextVqa(Benchmark):
    """TextVQA 0.5.1 val. Question ids are image ids and repeat: the identity is (image id, question).

    LLaVA asks with the words that an OCR system found in the image; `of_split("noocr")` leaves them out.
    """

    name = folder = "textvqa"
    headline = "accuracy"
    published: Mapping[str, float] = {"llava-1.5-7b": 58.2, "dpn-llava-7b": 57.9}
    published_protocol = "textvqa+ocr"

    def __init__(self, *, has_ocr: bool = True) -> None:
        self.has_ocr = has_ocr

    def of_split(self, split: str) -> "TextVqa":
        if split not in ("ocr", "noocr"):
            raise ValueError(f"{self.name} has no split {split!r}; it is asked with ocr or noocr")
        return TextVqa(has_ocr=split == "ocr")

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        """Say whether the prompts held OCR tokens: 58.2 with them is about 46 without for LLaVA-1.5-7B."""
        with_tokens = sum(any(mark in prompt for mark in _OCR_MARKS) for prompt in prompts)
        if with_tokens == len(prompts):
            return "textvqa+ocr"
        return "textvqa+some_ocr" if with_tokens else "textvqa-noocr"

    def questions(self, root: Path) -> list[Question]:
        """Read LLaVA's question file, which carries the OCR tokens, and the annotations.

        Without OCR tokens the annotations will do.
        """
        folder = root / self.folder
        annotated = self._annotated(folder)
        path = folder / _ASKED
        if not self.has_ocr and not path.exists():
            return annotated
        annotations = {self.key(q.id, q.text): q for q in annotated}
        questions = []
        for line in read_question_lines(path):
            try:
                known = annotations[self.key(line["question_id"], line["text"])]
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
            except KeyError:
                raise ValueError(
                    f"{path}: question {line['question_id']} ({line['text'].splitlines()[0]}) is not in "
                    "TextVQA_0.5.1_val.json; the two files must be of one release"
                ) from None
            questions.append(
                Question(
                    id=line["question_id"],
                    text=line["text"] if self.has_ocr else known.text,
                    image=folder / "train_images" / line["image"],
                    gold=known.gold,
                    category=line.get("category", "default"),
                    extra=extra_keys(line),
                )
            )
        return questions

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read the question file where there is one, else every annotated question."""
        folder = root / self.folder
        return self.questions(root) if (folder / _ASKED).exists() else self._annotated(folder)

    def key(self, question_id: str | int, prompt: str) -> Hashable:
        try:
            return str(question_id), asked_question(prompt)
        except ValueError as error:
            raise ValueError(f"question {question_id}: {error}") from error

    def gold_text(self, question: Question) -> str:
        return Counter(question.gold).most_common(1)[0][0]

    def correctness(self, question: Question, answer: str) -> float:
        return soft_accuracy(answer, question.gold)

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Average the soft accuracy; a missing answer counts as wrong, even where "" would be right."""
        scores = [
            0.0 if answer.is_missing else self.correctness(question, answer.text)
            for question, answer in zip(questions, answers, strict=True)
        ]
        return {"accuracy": percent(scores)}

    def _annotated(self, folder: Path) -> list[Question]:
        """Read the annotations; of entries that ask the same the last one counts, as for upstream."""
        path = folder / "TextVQA_0.5.1_val.json"
        annotations = read_json(path, "TextVQA's validation annotations")
        entries = annotations.get("data") if isinstance(annotations, dict) else None
        if not isinstance(entries, list) or not entries:
            raise ValueError(f'{path}: expected an object with a list "data" of at least one question')
        questions = [
            _annotated_question(path, folder, number, entry) for number, entry in enumerate(entries, start=1)
        ]
        golds = {self.key(question.id, question.text): question.gold for question in questions}
        return [replace(q, gold=golds[self.key(q.id, q.text)]) for q in questions]


def asked_question(prompt: str) -> str:
    """Recover the lower-cased question from a stored prompt, in any of the three forms LLaVA has used."""
    if prompt.startswith("OCR tokens: ") and "Question: " in prompt and " Short answer:" in prompt:
        return prompt.split("Question: ", 1)[1].rsplit(" Short answer:", 1)[0].lower()
    lines = prompt.split("\n")
    if "Reference OCR token: " in prompt and len(lines) == 3:
        return lines[1 if prompt.startswith("Reference OCR token:") else 0].lower()
    if len(lines) == 2:
        return lines[0].lower()
    raise ValueError(
        f"a TextVQA prompt of {len(lines)} lines: {prompt!r}; expected the question and the instruction, "
        "with or without a line 'Reference OCR token: ...'"
    )


def _annotated_question(path: Path, folder: Path, number: int, entry: Any) -> Question:
    require_fields(entry, f"{path}: entry {number}", {"image_id": str, "question": str, "answers": list})
    if not all(isinstance(answer, str) for answer in entry["answers"]):
        raise ValueError(f"{path}: entry {number}: every answer must be a string")
    if len(entry["answers"]) != ANSWERS_PER_QUESTION:
        raise ValueError(
            f"{path}: entry {number} (image {entry['image_id']}) has {len(entry['answers'])} answers, "
            f"expected {ANSWERS_PER_QUESTION}"
        )
    return Question(
        id=entry["image_id"],
        text=entry["question"] + SHORT_ANSWER,
        image=folder / "train_images" / f"{entry['image_id']}.jpg",
        gold=tuple(entry["answers"]),
    )
