"""The questions that a calibration prefills: those of benchmarks, or the first ones of training data."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.benchmark import Question
from llava.eval.reading import read_json
from llava.eval.score import find_benchmark


class Sources(Protocol):
    """Where questions come from, as the command line says it."""

    benchmarks: list[str]
    data: str | None
    image_folder: str | None
    data_root: str


def collect_questions(sources: Sources) -> tuple[list[Question], int]:
    """Read all questions there are, and the number of training samples that hold none to use.

    Raises:
        ValueError: a file can't be read, or an image is missing.
    """
    if sources.data is None:
        root = Path(sources.data_root)
        found = [question for name in sources.benchmarks for question in find_benchmark(name).questions(root)]
        skipped = 0
    else:
        assert sources.image_folder is not None
        found, skipped = training_questions(Path(sources.data), Path(sources.image_folder))
    found = [question for question in found if question.image is not None]
    absent = [question for question in found if image_is_missing(question)]
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(found)} images are missing, for example {absent[0].image} "
            f"(question {absent[0].id}); see playground/README.md for the layout"
        )
    return found, skipped


def training_questions(path: Path, image_folder: Path) -> tuple[list[Question], int]:
    """Read the first question of every training sample with one image; the others are counted.

    Raises:
        ValueError: no list of samples, or none of them has an image and a question.
    """
    samples = read_json(path, "LLaVA's training data")
    if not isinstance(samples, list):
        raise ValueError(f"{path}: expected a list of samples, found a JSON {type(samples).__name__}")
    found = [
        Question(id=str(sample.get("id", number)), text=text, image=image_folder / sample["image"], gold=None)
        for number, sample in enumerate(samples)
        if (text := _first_question(sample)) is not None
    ]
    if not found:
        raise ValueError(f"{path}: none of its {len(samples)} samples has one image and a question about it")
    return found, len(samples) - len(found)


def questions_digest(questions: Sequence[Question]) -> str:
    """Identify what was asked, in its order."""
    asked = json.dumps([[str(question.id), question.text, _image_name(question)] for question in questions])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def image_is_missing(question: Question) -> bool:
    """Say whether a question's image file isn't there; images inside the question file always are."""
    return isinstance(question.image, Path) and not question.image.is_file()


def _image_name(question: Question) -> str | None:
    """Name a question's image file, or the bytes that hold it; None without an image."""
    if isinstance(question.image, bytes):
        return hashlib.sha256(question.image).hexdigest()[:16]
    return question.image.name if isinstance(question.image, Path) else None


def _first_question(sample: Any) -> str | None:
    """Give the first human turn without its image token; None where the sample hasn't exactly one image."""
    if not isinstance(sample, dict) or not isinstance(sample.get("image"), str):
        return None
    turns = [turn for turn in sample.get("conversations") or () if turn.get("from") == "human"]
    if not turns or sum(turn["value"].count(DEFAULT_IMAGE_TOKEN) for turn in turns) != 1:
        return None
    text = turns[0]["value"]
    return text.replace(DEFAULT_IMAGE_TOKEN, "").strip() if DEFAULT_IMAGE_TOKEN in text else None
