"""MMMU's files: the data set as parquet, one folder per subject, and LLaVA-HR's file of right answers."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llava.eval.benchmark import CHOICE_ANSWER, SHORT_ANSWER, Question
from llava.eval.reading import MissingDataError, read_json

DOMAINS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
DOMAIN_OF = {subject: domain for domain, subjects in DOMAINS.items() for subject in subjects}
_COLUMNS = ("id", "question", "options", "answer", "question_type")
_IMAGE_COLUMN = "image_1"


class Gold(NamedTuple):
    """What is right, and what there is to choose from."""

    truth: str | tuple[str, ...]
    options: tuple[str, ...] | None
    """None for an open question, () where the options aren't known."""


def asked_text(question: str, options: Sequence[str] | None) -> str:
    """Return the prompt: one `(A) ...` line per option and an empty line, or the open question's suffix."""
    if options is None:
        return question + SHORT_ANSWER
    lines = "".join(f"({chr(ord('A') + n)}) {option}\n" for n, option in enumerate(options))
    return f"{question}\n{lines}{CHOICE_ANSWER}"


def options_of_prompt(prompt: str) -> tuple[str, ...]:
    """Recover the options from a stored prompt; () where it shows none."""
    body = prompt.removesuffix("\n" + CHOICE_ANSWER)
    start = body.rfind("\n(A) ")
    options = []
    while start >= 0:
        after = body.find(f"\n({chr(ord('B') + len(options))}) ", start + 1)
        options.append(body[start + len("\n(A) ") : after if after >= 0 else None])
        start = after
    return tuple(options)


def read_questions(folder: Path, *, with_images: bool) -> list[Question]:
    """Read the data set, subjects in alphabetical order.

    Right answers are those of `answer_dict_val.json` where it is there.

    Raises:
        MissingDataError: no parquet file in `folder`.
        ValueError: a file can't be used; the message names it and the row.
    """
    files = parquet_files(folder)
    if not files:
        raise MissingDataError(
            f"{folder}: no <Subject>/validation-*.parquet; expected the data set MMMU/MMMU "
            "(see playground/README.md)"
        )
    dictionary = folder / "answer_dict_val.json"
    golds = _answer_dict(dictionary) if dictionary.exists() else {}
    questions = []
    for path in files:
        for number, row in enumerate(_rows(path, with_images=with_images), start=1):
            question = _parse_row(f"{path}: row {number}", row, with_images=with_images)
            if golds and question.id not in golds:
                raise ValueError(f"{dictionary}: no answer for question {question.id} of {path}")
            if golds:
                gold = golds[str(question.id)]._replace(options=question.gold.options)
                question = replace(question, gold=gold)
            questions.append(question)
    return _by_subject(questions)


def read_answer_dict(folder: Path) -> list[Question]:
    """Read right answers alone: questions without text, image and options."""
    golds = _answer_dict(folder / "answer_dict_val.json")
    return _by_subject([_question(question_id, gold) for question_id, gold in golds.items()])


def parquet_files(folder: Path) -> list[Path]:
    """Find the validation files, directly under the folder or under the repository's name within it."""
    for base in (folder, folder / "MMMU"):
        if files := sorted(base.glob("*/validation-*.parquet")):
            return files
    return []


def _rows(path: Path, *, with_images: bool) -> list[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet  # noqa: PLC0415  optional: the extra "eval"
    except ImportError as error:
        raise ValueError(
            f"{path}: reading parquet files needs pyarrow; install it with: scripts/setup.sh eval"
        ) from error
    wanted = [*_COLUMNS, _IMAGE_COLUMN] if with_images else list(_COLUMNS)
    try:
        absent = set(wanted).difference(parquet.read_schema(path).names)
        if absent:
            raise ValueError(f"{path}: no column {', '.join(sorted(absent))}; expected MMMU's val split")
        return parquet.read_table(path, columns=wanted).to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable parquet file ({error}); download it again") from error


def _parse_row(place: str, row: Mapping[str, Any], *, with_images: bool) -> Question:
    """Make a question of a row of the data set; `place` names it in errors."""
    if not isinstance(row["question"], str):
        raise ValueError(f"{place}: question {row['question']!r}; expected text")
    options = None
    if row["question_type"] == "multiple-choice":
        options = _literal_strings(row["options"])
        if not options:
            raise ValueError(f"{place}: options {row['options']!r}; expected a list of strings, as text")
    elif row["question_type"] not in ("open", "short-answer"):
        raise ValueError(f"{place}: question_type {row['question_type']!r}; expected multiple-choice or open")
    image = None
    if with_images:
        cell = row[_IMAGE_COLUMN]
        image = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(image, bytes):
            raise ValueError(f"{place}: {_IMAGE_COLUMN} holds no image; download the file again")
    truth = _literal_strings(row["answer"]) if options is None else None
    gold = Gold(truth or str(row["answer"]), options)
    return _question(str(row["id"]), gold, text=asked_text(row["question"], options), image=image)


def _answer_dict(path: Path) -> dict[str, Gold]:
    """Read LLaVA-HR's file of right answers: id -> question_type, ground_truth."""
    entries = read_json(path, "MMMU's answers, id -> question_type and ground_truth")
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{path}: expected an object of question ids")
    golds = {}
    for question_id, entry in entries.items():
        truth = entry.get("ground_truth") if isinstance(entry, dict) else None
        if isinstance(truth, list) and all(isinstance(text, str) for text in truth):
            truth = tuple(truth)
        if not isinstance(truth, str | tuple) or "question_type" not in entry:
            raise ValueError(
                f"{path}: {question_id}: {entry!r}; expected question_type and ground_truth, a string or a "
                "list of strings"
            )
        golds[question_id] = Gold(truth, () if entry["question_type"] == "multiple-choice" else None)
    return golds


def _question(question_id: str, gold: Gold, *, text: str = "", image: Any = None) -> Question:
    subject = "_".join(question_id.split("_")[1:-1])
    if subject not in DOMAIN_OF:
        raise ValueError(
            f"MMMU question {question_id!r}: no subject {subject!r}; ids are like validation_Art_1"
        )
    return Question(id=question_id, text=text, image=image, gold=gold, category=subject)


def _by_subject(questions: list[Question]) -> list[Question]:
    return sorted(questions, key=lambda question: question.category)


def several(truth: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the right answers, one or more."""
    return truth if isinstance(truth, tuple) else (truth,)


def _literal_strings(text: str) -> tuple[str, ...] | None:
    """Read text that holds a Python list of strings; None where it holds something else."""
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return tuple(values)
    return None
