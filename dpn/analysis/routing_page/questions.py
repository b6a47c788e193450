"""Question files fill in what answer lines lack: images that lie inside a file, categories, grades."""

import base64
import binascii
import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

KEYS = ("image", "category", "grade")
"""What is taken from a question; `image` is a path, or the bytes of an image file."""


class Questions:
    """The questions of several files, found by the two fields that every answer line has."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        """Read LLaVA's question files (.jsonl) and MMBench's (.tsv).

        Raises:
            ValueError: a file that can't be read as one of the two.
        """
        self._by_text: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._by_id: dict[str, Mapping[str, Any] | None] = {}
        for path in paths:
            for question_id, text, question in _read(path):
                self._by_text.setdefault((question_id, text), question)
                is_known = question_id in self._by_id
                self._by_id[question_id] = None if is_known else question  # None: the id alone says nothing

    def complete(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return an answer line with what its question adds; the line's own values win."""
        name = str(row["question_id"])
        question = self._by_text.get((name, row["prompt"])) or self._by_id.get(name) or {}
        return {**row, **{key: question[key] for key in KEYS if key in question and row.get(key) is None}}


def _read(path: Path) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    readers = {".jsonl": _read_lines, ".tsv": _read_table}
    if path.suffix not in readers:
        raise ValueError(
            f"--questions {path}: expected one of LLaVA's question files (.jsonl) or MMBench's (.tsv)"
        )
    try:
        return readers[path.suffix](path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--questions {path}: can't be read ({error})") from error


def _read_lines(path: Path) -> list[tuple[str, str, Mapping[str, Any]]]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            question = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"--questions {path}:{number}: not valid JSON ({error})") from error
        if not isinstance(question, dict) or "question_id" not in question:
            raise ValueError(f"--questions {path}:{number}: no question_id; expected a question per line")
        known = {key: question[key] for key in KEYS if _says_something(question.get(key))}
        found.append((str(question["question_id"]), str(question.get("text", "")), known))
    return found


def _says_something(value: Any) -> bool:
    """Tell words from nothing, and from the category that LLaVA's files give what has none."""
    return isinstance(value, str) and value not in ("", "default")


def _read_table(path: Path) -> list[tuple[str, str, Mapping[str, Any]]]:
    csv.field_size_limit(sys.maxsize)  # an image is one field
    found = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if absent := {"index", "image"}.difference(reader.fieldnames or ()):
            raise ValueError(f"--questions {path}: no column {', '.join(sorted(absent))}; expected MMBench's")
        for row in reader:
            try:
                image = base64.b64decode(row["image"] or "", validate=True)
            except binascii.Error as error:
                raise ValueError(
                    f"--questions {path}:{reader.line_num}: the image is not base64 ({error})"
                ) from error
            found.append((str(row["index"]), "", {"image": image, "category": row.get("category")}))
    return found
