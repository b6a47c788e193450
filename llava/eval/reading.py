"""Read the files of a benchmark and files of answers; what is wrong with one is said with file and line."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

QUESTION_FIELDS = ("question_id", "image", "text", "category")
"""LLaVA's own keys of a question line."""

_BLANK = ": a blank line"
_LONGEST_SHOWN = 60
_KINDS: Mapping[type, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_TEXT_FIELDS = frozenset({"prompt", "text", "image", "category", "label"})


class MissingDataError(ValueError):
    """A file of a benchmark isn't there; an evaluation of several benchmarks may skip this one."""


class AnswersFile(NamedTuple):
    """A file of answers as it was read."""

    path: Path
    rows: list[dict[str, Any]]
    """Answer lines in file order, each with `question_id`, `prompt` and `text`."""
    bad_lines: Sequence[str] = ()
    """What was wrong with lines that were skipped; always empty for `read_answers`."""


def read_text(path: Path, purpose: str) -> str:
    """Read a text file; errors name the file and what it is for."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingDataError(
            f"{path}: no such file; expected {purpose} (see playground/README.md)"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror}); expected {purpose}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 text ({error.reason}); expected {purpose}") from error


def read_json(path: Path, purpose: str) -> Any:
    """Read a whole JSON file; errors name the file and what it is for."""
    text = read_text(path, purpose)
    if not text.strip():
        raise ValueError(f"{path}: empty; expected {purpose}")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}); expected {purpose}"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless nesting
        raise ValueError(f"{path}: not readable as JSON ({error}); expected {purpose}") from error


def read_json_lines(path: Path, purpose: str, required: Sequence[str]) -> list[dict[str, Any]]:
    """Read one JSON object per line, each with the required keys; errors name the file and the line.

    Blank lines are passed over.
    """
    rows, bad_lines = _read_rows(path, purpose, required)
    problems = [problem for problem in bad_lines if not problem.endswith(_BLANK)]
    if problems:
        raise ValueError(problems[0])
    if not rows:
        raise ValueError(f"{path}: empty; expected {purpose}, one JSON object per line")
    return rows


def read_answers(path: Path) -> AnswersFile:
    """Read an answers file: upstream's schema, of which three keys matter for scoring."""
    rows = read_json_lines(path, "answers", ("question_id", "prompt", "text"))
    return AnswersFile(path, rows)


def read_answers_leniently(path: Path) -> AnswersFile:
    """Read an answers file and skip lines that are no answer, as upstream's VQAv2 and VizWiz converters do.

    Blank lines count among the skipped ones, and an answer needs no prompt here ("" stands for it). A file
    without one answer is refused all the same.
    """
    rows, bad_lines = _read_rows(path, "answers", ("question_id", "text"))
    if not rows:
        raise ValueError(bad_lines[0] + "; no line of this file is an answer")
    return AnswersFile(path, [{"prompt": "", **row} for row in rows], bad_lines)


def read_question_lines(path: Path) -> list[dict[str, Any]]:
    """Read one of LLaVA's question files."""
    return read_json_lines(path, "LLaVA's question file", ("question_id", "image", "text"))


def require_fields(entry: Any, where: str, fields: Mapping[str, type]) -> None:
    """Raise unless an entry of a JSON file is an object that has these fields, each of its type."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {_shown(entry)}; expected an object with {', '.join(fields)}")
    absent = [name for name in fields if name not in entry]
    if absent:
        raise ValueError(f"{where} has no {', '.join(absent)}")
    for name, kind in fields.items():
        value = entry[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{where}: {name} is {_shown(value)}; expected {_KINDS[kind]}")


def extra_keys(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a question line holds beyond LLaVA's own keys."""
    return {key: value for key, value in line.items() if key not in QUESTION_FIELDS}


def _read_rows(path: Path, purpose: str, required: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the objects of a file of JSON lines, and what is wrong with the other lines."""
    rows, bad_lines = [], []
    for number, line in enumerate(read_text(path, purpose).removesuffix("\n").split("\n"), start=1):
        found = _parse_line(line, purpose, required)
        if isinstance(found, str):
            bad_lines.append(f"{path}:{number}{found}")
        else:
            rows.append(found)
    return rows, bad_lines


def _parse_line(line: str, purpose: str, required: Sequence[str]) -> dict[str, Any] | str:
    """Return the object on a line, or what is wrong with the line."""
    if not line.strip():
        return _BLANK
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f": not valid JSON ({getattr(error, 'msg', error)}); expected {purpose}"
    absent = [key for key in required if key not in row] if isinstance(row, dict) else list(required)
    if absent:
        return f": no {', '.join(absent)}; expected {purpose} with {list(required)}"
    for key in {*required, "category"}.intersection(_TEXT_FIELDS):
        if not isinstance(row.get(key, ""), str):
            return f": {key} is {_shown(row[key])}; expected a string"
    question_id = row.get("question_id", 0)
    if isinstance(question_id, bool) or not isinstance(question_id, str | int):
        return f": question_id is {_shown(question_id)}; expected a string or a whole number"
    return row


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
