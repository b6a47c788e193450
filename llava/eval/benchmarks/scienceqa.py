"""ScienceQA test: school questions of two to five choices, about half of them with an image."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.benchmark import CHOICE_ANSWER, Answer, Benchmark, Question, match_answers, percent
from llava.eval.reading import AnswersFile, read_json
from llava.eval.writing import write_json

FAILED = "FAILED"
"""What stands for a letter that couldn't be read, and for an answer that isn't there."""
_LETTERS = "ABCDE"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")


class Judged(NamedTuple):
    """One answer as the scorer sees it."""

    letter: str
    place: int
    """Place of the letter among the choices, -1 where it is none of them."""
    is_right: bool
    has_image: bool
    """Whether the stored prompt has an image token; never for a missing answer."""


class ScienceQa(Benchmark):
    """ScienceQA in LLaVA's layout. `image_accuracy` is the SQA-I of papers."""

    name = "scienceqa"
    folder = "scienceqa"
    max_new_tokens = 1024
    headline = "image_accuracy"
    published: Mapping[str, float] = {"llava-1.5-7b": 66.8, "dpn-llava-7b": 67.7}
    published_protocol = "scienceqa_test"
    submission = "scienceqa_result.json"

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        """Name the test split, and the prompts where one of them lacks LLaVA-1.5's suffix."""
        has_suffix = all(prompt.endswith(CHOICE_ANSWER) for prompt in prompts)
        return "scienceqa_test" if has_suffix else "scienceqa_test+other_prompt"

    def questions(self, root: Path) -> list[Question]:
        """Read LLaVA's question file; a record without `image` is asked without one."""
        folder = root / self.folder
        path = folder / "llava_test_CQM-A.json"
        problems = _problems(folder)
        questions = []
        for number, record in enumerate(read_records(path), start=1):
            if record["id"] not in problems:
                raise ValueError(f"{path}: question {number}: id {record['id']!r} is not in problems.json")
            text, image = asked_text(record["conversations"][0]["value"]), record.get("image")
            questions.append(
                Question(
                    id=record["id"],
                    text=text,
                    image=None if image is None else folder / "images" / "test" / image,
                    gold=problems[record["id"]],
                    prompt=text if image is None else f"{DEFAULT_IMAGE_TOKEN}\n{text}",
                )
            )
        return questions

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read the test split from `pid_splits.json` and `problems.json`, in the split's order."""
        folder = root / self.folder
        path = folder / "pid_splits.json"
        splits = read_json(path, "ScienceQA's splits")
        ids = splits.get("test") if isinstance(splits, dict) else None
        if not isinstance(ids, list) or not ids:
            raise ValueError(f'{path}: expected an object with a list "test" of at least one id')
        problems = _problems(folder)
        if unknown := [str(name) for name in ids if str(name) not in problems]:
            raise ValueError(f"{path}: no problem {unknown[0]} in problems.json; use one release")
        return [
            Question(id=problem_id, text="", image=None, gold=problems[str(problem_id)]) for problem_id in ids
        ]

    def gold_text(self, question: Question) -> str:
        return _LETTERS[question.gold["answer"]]

    def correctness(self, question: Question, answer: str) -> float:
        return float(chosen_place(chosen_letter(answer), question) == question.gold["answer"])

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score all questions, and those with an image.

        As in the original a question counts as one with an image by its stored prompt, so a missing answer
        counts among all questions alone. Nothing with an image is 0.0.
        """
        judged = [judge(question, answer) for question, answer in zip(questions, answers, strict=True)]
        return {
            "accuracy": percent([entry.is_right for entry in judged]),
            "image_accuracy": percent([entry.is_right for entry in judged if entry.has_image]),
        }

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write both files of LLaVA's scorer: results per id, and beside it the answers, right and wrong.

        The second file is named `..._output.jsonl`, and is one JSON object, as upstream's.
        """
        questions = self.references(root, answers)
        matched = match_answers(self, questions, answers.rows)
        pairs = list(zip(questions, matched.answers, strict=True))
        details = output.with_name(output.stem.removesuffix("_result") + "_output.jsonl")
        if details.absolute() == answers.path.absolute():
            raise ValueError(f"{details}: would overwrite the answers; choose another --output")
        write_json(output, results(pairs))
        write_json(details, right_and_wrong(pairs))
        return f"{output}: results of {len(pairs)} questions; {details}: the answers, right and wrong"


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read LLaVA's question file: each record with `id`, `conversations`, and `image` if there is one."""
    records = read_json(path, "LLaVA's ScienceQA questions")
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path}: expected a list of at least one question")
    for number, record in enumerate(records, start=1):
        try:
            texts = (record["id"], record["conversations"][0]["value"], record.get("image") or "")
        except (KeyError, IndexError, TypeError, AttributeError):
            texts = (None,)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"{path}: question {number}: expected id, conversations (the first with a value) and, for an "
                "image, its path, all of them strings"
            )
    return records


def asked_text(value: str, suffix: str = CHOICE_ANSWER) -> str:
    """Return the question of a record's first turn as LLaVA asks it: image token out, suffix on."""
    return value.replace(DEFAULT_IMAGE_TOKEN, "").strip() + suffix


def chosen_letter(answer: str) -> str:
    """Return the letter an answer names, or FAILED: `B`, `B. ...`, or once `The answer is B` and one more."""
    if answer in tuple(_LETTERS):
        return answer
    if len(answer) >= 3 and answer[0] in _LETTERS and answer[1:3] == ". ":
        return answer[0]
    found = _SENTENCE.findall(answer)
    return found[0] if len(found) == 1 else FAILED


def chosen_place(letter: str, question: Question) -> int:
    """Return the place of a letter among the question's choices, -1 where it is none of them."""
    return _LETTERS[: len(question.gold["choices"])].find(letter)


def judge(question: Question, answer: Answer) -> Judged:
    """Judge one answer, which may be missing."""
    letter = FAILED if answer.is_missing else chosen_letter(answer.text)
    place = chosen_place(letter, question)
    has_image = not answer.is_missing and DEFAULT_IMAGE_TOKEN in answer.prompt
    return Judged(letter, place, place == question.gold["answer"], has_image)


def results(pairs: Sequence[tuple[Question, Answer]]) -> dict[str, Any]:
    """Return what upstream writes as its result file: overall accuracy, and index and text per id."""
    judged = {str(question.id): judge(question, answer) for question, answer in pairs}
    return {
        "acc": percent([entry.is_right for entry in judged.values()]),
        "correct": sum(entry.is_right for entry in judged.values()),
        "count": len(judged),
        "results": {problem_id: entry.place for problem_id, entry in judged.items()},
        "outputs": {
            str(question.id): FAILED if answer.is_missing else answer.text for question, answer in pairs
        },
    }


def right_and_wrong(pairs: Sequence[tuple[Question, Answer]]) -> dict[str, list[dict[str, Any]]]:
    """Return what upstream writes as its output file: every answer in full, sorted into right and wrong."""
    sorted_answers: dict[str, list[dict[str, Any]]] = {"correct": [], "incorrect": []}
    for question, answer in pairs:
        entry = judge(question, answer)
        sorted_answers["correct" if entry.is_right else "incorrect"].append(
            {
                "question_id": question.id,
                "parsed_ans": entry.letter,
                "ground_truth": _LETTERS[question.gold["answer"]],
                "question": "Unknown" if answer.is_missing else answer.prompt,
                "pred": FAILED if answer.is_missing else answer.text,
                "is_multimodal": entry.has_image,
            }
        )
    return sorted_answers


def _problems(folder: Path) -> dict[str, dict[str, Any]]:
    """Read problems.json: id -> choices and the place of the right one."""
    path = folder / "problems.json"
    problems = read_json(path, "ScienceQA's problems")
    if not isinstance(problems, dict) or not problems:
        raise ValueError(f"{path}: expected an object of problems by id")
    for problem_id, problem in problems.items():
        choices = problem.get("choices") if isinstance(problem, dict) else None
        answer = problem.get("answer") if isinstance(problem, dict) else None
        if not isinstance(choices, list) or not isinstance(answer, int) or not 0 <= answer < len(_LETTERS):
            raise ValueError(
                f"{path}: problem {problem_id}: expected a list of choices, and as answer a number "
                f"below {len(_LETTERS)}"
            )
    return problems
