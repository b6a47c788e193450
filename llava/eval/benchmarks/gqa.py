"""GQA testdev-balanced: one-phrase answers compared as exact strings, split by question type."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmark import SHORT_ANSWER, Answer, Benchmark, Question, percent
from llava.eval.reading import AnswersFile, extra_keys, read_json, read_question_lines, require_fields
from llava.eval.writing import write_text

_FIELDS = {
    "question": str,
    "imageId": str,
    "answer": str,
    "isBalanced": bool,
    "types": dict,
    "semantic": list,
    "groups": dict,
}
_NOT_A_STEP = ("exist", "query: name", "choose name")


class Gqa(Benchmark):
    """GQA in the layout of LLaVA's eval.zip; works from the official question file alone as well."""

    name = folder = "gqa"
    max_new_tokens = 128
    headline = "accuracy"
    published: Mapping[str, float] = {"llava-1.5-7b": 62.0, "dpn-llava-7b": 63.2}
    published_protocol = "gqa_testdev_balanced"
    submission = "testdev_balanced_predictions.json"

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        return "gqa_testdev_balanced"

    def questions(self, root: Path) -> list[Question]:
        """Read the JSONL where there is one (it sets order and wording), else the official questions."""
        folder = root / self.folder
        official = _official_questions(folder / "data" / "testdev_balanced_questions.json")
        listed = folder / "llava_gqa_testdev_balanced.jsonl"
        if not listed.exists():
            return [
                Question(
                    id=question_id,
                    text=entry["question"] + SHORT_ANSWER,
                    image=folder / "images" / f"{entry['imageId']}.jpg",
                    gold=entry,
                )
                for question_id, entry in official.items()
            ]
        lines = read_question_lines(listed)
        _require_same_questions(listed, {str(line["question_id"]) for line in lines}, official)
        return [
            Question(
                id=line["question_id"],
                text=line["text"],
                image=folder / "images" / line["image"],
                gold=official[str(line["question_id"])],
                category=line.get("category", "default"),
                extra=extra_keys(line),
            )
            for line in lines
        ]

    def gold_text(self, question: Question) -> str:
        return question.gold["answer"]

    def correctness(self, question: Question, answer: str) -> float:
        return float(predicted(answer) == question.gold["answer"])

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score the balanced questions: overall, binary and open, and per type as the official script."""
        by_split: dict[str, list[float]] = {"accuracy": [], "binary": [], "open": []}
        groups: dict[str, tuple[Counter[str], Counter[str]]] = defaultdict(lambda: (Counter(), Counter()))
        for question, answer in zip(questions, answers, strict=True):
            if not question.gold["isBalanced"]:
                continue
            for split in _splits(question.gold):
                by_split.setdefault(split, []).append(self.correctness(question, answer.text))
            if (group := question.gold["groups"].get("global")) is not None:
                expected, given = groups[group]
                expected[question.gold["answer"]] += 1
                given[predicted(answer.text)] += 1
        metrics = {split: percent(values) for split, values in by_split.items()}
        return metrics | {"distribution": _distribution(groups)}

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write [{questionId, prediction}], one for every answer line, as the official script reads it."""
        entries = [
            {"questionId": row["question_id"], "prediction": predicted(row["text"])} for row in answers.rows
        ]
        write_text(output, json.dumps(entries))
        return f"{len(entries)} predictions for GQA's official eval.py"


def predicted(answer: str) -> str:
    """Return the prediction as the submission file holds it: trailing dots removed, lower-cased."""
    return answer.rstrip(".").lower()


def _splits(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Name every metric that an official question counts for."""
    structural, semantic = entry["types"]["structural"], entry["types"]["semantic"]
    operations = (f"{step['operation']}: {step['argument']}" for step in entry["semantic"])
    steps = sum(not any(name in operation for name in _NOT_A_STEP) for operation in operations)
    return (
        "accuracy",
        "open" if structural == "query" else "binary",
        f"structural/{structural}",
        f"semantic/{semantic}",
        f"steps/{steps}",
        f"words/{len(entry['question'].split())}",
    )


def _distribution(groups: Mapping[str, tuple[Counter[str], Counter[str]]]) -> float:
    """Return the chi-square distance of predicted and gold answer counts per group, weighted by group size.

    Lower is better. Only gold answers are visited, as in the official script.
    """
    total = weights = 0.0
    for expected, given in groups.values():
        distance = sum((given[answer] - count) ** 2 / count for answer, count in expected.items())
        size = sum(expected.values())
        total, weights = total + distance * size, weights + size
    return total / weights / 100 if weights else 0.0


def _official_questions(path: Path) -> dict[str, dict[str, Any]]:
    questions = read_json(path, "GQA's official testdev_balanced_questions.json (questions1.2)")
    if not isinstance(questions, dict) or not questions:
        raise ValueError(f"{path}: expected an object {{question id: question}} with at least one question")
    for question_id, entry in questions.items():
        where = f"{path}: question {question_id}"
        require_fields(entry, where, _FIELDS)
        require_fields(entry["types"], f"{where}: types", {"structural": str, "semantic": str})
        for step in entry["semantic"]:
            require_fields(step, f"{where}: a step of semantic", {"operation": str, "argument": object})
        group = entry["groups"].get("global")
        if not (group is None or isinstance(group, str)):
            raise ValueError(f"{where}: groups: global is {group!r}; expected a string or null")
    return questions


def _require_same_questions(path: Path, listed: set[str], official: Mapping[str, Mapping[str, Any]]) -> None:
    without_answer = sorted(listed - official.keys())
    not_asked = sorted(key for key, entry in official.items() if entry["isBalanced"] and key not in listed)
    for problem, ids in (("are not in", without_answer), ("are missing although they are in", not_asked)):
        if ids:
            raise ValueError(
                f"{path}: {len(ids)} questions {problem} data/testdev_balanced_questions.json, for example "
                f"{ids[0]}; the two files must be of one release"
            )
