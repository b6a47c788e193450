"""Read the files of a result folder; what is wrong with one is said with its path and line."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

AGAIN = "evaluate it again"
"""What to do about a file that isn't as llava.eval writes it."""
Rules = Mapping[str, tuple[Callable[[Any], bool], str]]
"""Key -> whether its value is good, and what it must be."""
_KERNEL = re.compile(r"[1-9]\d{0,2}x[1-9]\d{0,2}")
_SHOWN = 60
"""Characters of a wrong value that a message repeats."""


def read_object(path: Path, advice: str = AGAIN) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        ValueError: no such file, or something else in it; the message ends in `advice`.
    """
    found = _parsed(_text(path, advice), str(path), advice)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: {_kind(found)}, expected an object; {advice}")
    return found


def read_rows(
    path: Path, rules: Rules, *, required: Sequence[str], advice: str = AGAIN
) -> list[tuple[str, dict[str, Any]]]:
    """Read one JSON object per line, each with its place ("PATH, line N"); blank lines are passed over.

    Raises:
        ValueError: a file without lines, or a line that is no object, lacks a required key or breaks a rule;
            the message ends in `advice`.
    """
    rows = []
    for number, line in enumerate(_text(path, advice).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _parsed(line, where, advice)
        if not isinstance(row, dict):
            raise ValueError(f"{where}: {_kind(row)}, expected an object; {advice}")
        if absent := [key for key in required if key not in row]:
            raise ValueError(f"{where}: no {', '.join(absent)}; {advice}")
        check(row, rules, where, advice)
        rows.append((where, row))
    if not rows:
        raise ValueError(f"{path}: empty, expected an answer per line; {advice}")
    return rows


def check(found: Mapping[str, Any], rules: Rules, where: str, advice: str = AGAIN) -> None:
    """Refuse values that break the rule of their key; keys that aren't there break none.

    Raises:
        ValueError: a value that breaks its rule; the message ends in `advice`.
    """
    for key, (is_good, rule) in rules.items():
        if key in found and not is_good(found[key]):
            raise ValueError(f"{where}: {key} is {shown(found[key])}, expected {rule}; {advice}")


def shown(value: Any) -> str:
    """Return the start of a value for a message."""
    return f"{value!r:.{_SHOWN}}"


def _text(path: Path, advice: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror}); {advice}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}); {advice}") from error


def _parsed(text: str, where: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = where if error.lineno == 1 else f"{where}, line {error.lineno}"
        raise ValueError(f"{place}: not valid JSON ({error.msg}); {advice}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless nesting
        raise ValueError(f"{where}: not readable as JSON ({error}); {advice}") from error


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def is_number(value: Any) -> bool:
    """Say whether a value from a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_amount(value: Any) -> bool:
    """Say whether a value is a finite number of 0 or more."""
    return is_number(value) and value >= 0


def is_count(value: Any) -> bool:
    """Say whether a value is a whole number of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_pair(value: Any) -> bool:
    """Say whether a value is a list of two counts."""
    return is_list(value, is_count, least=2) and len(value) == 2


def is_list(value: Any, is_item: Callable[[Any], bool], *, least: int = 0) -> bool:
    """Say whether a value is a list of good items, at least so many."""
    return isinstance(value, list) and len(value) >= least and all(is_item(item) for item in value)


def is_text(value: Any) -> bool:
    """Say whether a value is a string."""
    return isinstance(value, str)


def is_text_or_null(value: Any) -> bool:
    """Say whether a value is a string or null."""
    return value is None or isinstance(value, str)


def _are(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Make a rule of a rule: an object whose values all keep it."""
    return lambda value: isinstance(value, dict) and all(is_item(item) for item in value.values())


def is_finite(value: Any) -> bool:
    """Say whether no number in a value, however deep, is NaN or infinite."""
    if isinstance(value, dict | list):
        return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


ANSWER_RULES: Rules = {
    "question_id": (lambda v: isinstance(v, str | int) and not isinstance(v, bool), "a string or a number"),
    "prompt": (is_text, "a string"),
    "text": (is_text, "a string"),
    "image": (is_text_or_null, "a path or null"),
    "score": (lambda v: v is None or is_number(v), "a number or null"),
    "route": (
        lambda v: is_list(v, lambda name: isinstance(name, str) and bool(_KERNEL.fullmatch(name))),
        'kernels such as ["1x1", "2x2"]',
    ),
    "probabilities": (lambda v: is_list(v, lambda dpe: is_list(dpe, is_number)), "a list of numbers per DPE"),
    "visual_tokens_per_layer": (lambda v: is_list(v, is_count, least=1), "a count per layer"),
    "visual_grids": (lambda v: is_list(v, is_pair), "[rows, columns] per crop"),
    "flops_ratio": (_are(is_number), "a number per counting"),
}
"""What a key of an answer line must be where it is there."""

SCORE_RULES: Rules = {
    "benchmark": (is_text, "a string"),
    "protocol": (is_text, "a string"),
    "headline": (is_text, "a string"),
    "metrics": (lambda v: isinstance(v, dict), "an object of numbers"),
    "flops_ratio": (_are(is_amount), "an object of numbers of 0 or more"),
    "gflops": (_are(is_amount), "an object of numbers of 0 or more"),
    "visual_tokens": (is_amount, "a number of 0 or more"),
    "seconds_per_sample": (lambda v: v is None or (is_number(v) and v > 0), "a number above 0, or null"),
    "reduction": (
        lambda v: v is None or (isinstance(v, dict) and isinstance(v.get("method"), str)),
        "an object with a method, or null",
    ),
    "by_grade": (
        lambda v: _are(lambda part: isinstance(part, dict))(v) and is_finite(v),
        "an object of numbers per grade",
    ),
    "device": (is_text_or_null, "a string or null"),
    "dtype": (is_text_or_null, "a string or null"),
    "batch_size": (lambda v: v is None or is_count(v), "a count or null"),
}
"""What a key of scores.json must be where it is there."""
