"""SEED-Bench: one choice of four about images, and about single frames of videos."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmark import Answer, Benchmark, Question, match_answers, percent
from llava.eval.reading import (
    AnswersFile,
    MissingDataError,
    extra_keys,
    read_json,
    read_question_lines,
)
from llava.eval.writing import write_text

_REQUIRED = ("answer", "data_type", "question_id", "question_type_id")
_QUESTION_FILE = "llava-seed-bench.jsonl"
_VIDEO_FRAMES = "SEED-Bench-video-image"
_DATA_TYPES = ("image", "video")


class Seed(Benchmark):
    """SEED-Bench in LLaVA's layout; an answer is right if it is the letter and nothing else."""

    name = "seed"
    folder = "seed_bench"
    headline = "image_accuracy"
    published: Mapping[str, float] = {"llava-1.5-7b": 66.1, "dpn-llava-7b": 68.4}
    published_protocol = "seed_image"
    submission = "seed_upload.jsonl"

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        """Say whether videos were asked about: papers mix accuracy over all with that over images."""
        has_video = any(question.gold["data_type"] == "video" for question in questions)
        return "seed_all" if has_video else "seed_image"

    def questions(self, root: Path) -> list[Question]:
        """Read LLaVA's question file; without the folder of video frames only what is about images."""
        folder = root / self.folder
        path = folder / _QUESTION_FILE
        golds = {str(entry["question_id"]): entry for entry in _annotations(folder)}
        has_videos = (folder / _VIDEO_FRAMES).is_dir()
        questions = []
        for line in read_question_lines(path):
            gold = golds.get(str(line["question_id"]))
            if gold is None:
                raise ValueError(f"{path}: question {line['question_id']} is not in SEED-Bench.json")
            if has_videos or gold["data_type"] == "image":
                questions.append(
                    Question(
                        id=line["question_id"],
                        text=line["text"],
                        image=folder / line["image"],
                        gold=gold,
                        category=line.get("category", gold["type"]),
                        extra=extra_keys(line),
                    )
                )
        if not questions:
            raise MissingDataError(
                f"{path}: only questions about videos, but there is no {folder / _VIDEO_FRAMES}"
            )
        return questions

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read the questions from the annotations; those about images alone if no video has an answer."""
        questions = [
            Question(id=entry["question_id"], text="", image=None, gold=entry, category=entry["type"])
            for entry in _annotations(root / self.folder)
        ]
        if answers is None:
            return questions
        answered = {str(row["question_id"]) for row in answers.rows}
        asked = {question.gold["data_type"] for question in questions if str(question.id) in answered}
        return [question for question in questions if question.gold["data_type"] in (asked or _DATA_TYPES)]

    def gold_text(self, question: Question) -> str:
        return question.gold["answer"]

    def correctness(self, question: Question, answer: str) -> float:
        return float(answer == question.gold["answer"])

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score overall, images, videos, and each question type under its name; a missing answer is wrong."""
        overall: list[float] = []
        by_data: dict[str, list[float]] = {}
        by_type: dict[str, list[float]] = {}
        for question, answer in zip(questions, answers, strict=True):
            score = self.correctness(question, answer.text)
            overall.append(score)
            by_data.setdefault(f"{question.gold['data_type']}_accuracy", []).append(score)
            by_type.setdefault(question.gold["type"], []).append(score)
        groups = {"image_accuracy": [], **by_data, "accuracy": overall, **by_type}
        return {name: percent(scores) for name, scores in groups.items()}

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write one line per question for the leaderboard; a missing answer is "", which counts as wrong."""
        questions = self.references(root, answers)
        matched = match_answers(self, questions, answers.rows)
        lines = [
            json.dumps({"question_id": question.id, "prediction": answer.text}) + "\n"
            for question, answer in zip(questions, matched.answers, strict=True)
        ]
        write_text(output, "".join(lines))
        return f"{output}: {len(lines)} predictions for SEED-Bench's leaderboard"


def _annotations(folder: Path) -> list[dict[str, Any]]:
    """Read SEED-Bench.json; every entry gets the name of its question type as `type`."""
    path = folder / "SEED-Bench.json"
    content = read_json(path, "SEED-Bench's annotations")
    entries = content.get("questions") if isinstance(content, dict) else None
    types = content.get("question_type") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries or not isinstance(types, dict):
        raise ValueError(f'{path}: expected an object with a list "questions" and the object "question_type"')
    names = {str(number): name for name, number in types.items()}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not set(_REQUIRED) <= set(entry):
            raise ValueError(f"{path}: question {number}: expected an object with {', '.join(_REQUIRED)}")
        if entry["data_type"] not in _DATA_TYPES or str(entry["question_type_id"]) not in names:
            raise ValueError(
                f"{path}: question {entry['question_id']}: data_type {entry['data_type']!r} and "
                f"question_type_id {entry['question_type_id']!r}; expected image or video, and a number that "
                "question_type names"
            )
    return [{**entry, "type": names[str(entry["question_type_id"])]} for entry in entries]
