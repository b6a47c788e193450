"""What a JSON document may hold, and where one differs from that."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """One value."""

    kind: str
    """text, integer, number or null, joined by "or" where it may be several."""
    what: str
    """What it is, with its unit."""


@dataclass(frozen=True)
class ListOf:
    """Any number of the same."""

    item: Any


@dataclass(frozen=True)
class MapOf:
    """An object whose keys aren't fixed."""

    item: Any


def text(what: str) -> Field:
    """Describe a text."""
    return Field("text", what)


def number(what: str) -> Field:
    """Describe a finite number."""
    return Field("number", what)


def integer(what: str) -> Field:
    """Describe a whole number."""
    return Field("integer", what)


def problems(document: Any, spec: Any, path: str = "") -> list[str]:
    """List where a document differs from a specification; [] where it follows it.

    >>> spec = {"batch": ListOf(integer("samples")), "name": text("of the run")}
    >>> problems({"batch": [1, "2"], "more": 0}, spec)
    ["name: missing", "more: unknown field", "batch[1]: expected integer, found '2'"]
    """
    if isinstance(spec, Field):
        return [] if _fits(document, spec.kind) else [_unlike(path, spec.kind, document)]
    if isinstance(spec, ListOf):
        if not isinstance(document, list):
            return [_unlike(path, "a list", document)]
        inside = [(f"{path}[{index}]", item, spec.item) for index, item in enumerate(document)]
        return [one for name, item, inner in inside for one in problems(item, inner, name)]
    if not isinstance(document, Mapping):
        return [_unlike(path, "an object", document)]
    names = {name: f"{path}.{name}".lstrip(".") for name in document}
    if isinstance(spec, MapOf):
        return [one for name, item in document.items() for one in problems(item, spec.item, names[name])]
    missing = [f"{path}.{name}: missing".lstrip(".") for name in spec if name not in document]
    unknown = [f"{names[name]}: unknown field" for name in document if name not in spec]
    known = [name for name in spec if name in document]
    return (
        missing
        + unknown
        + [one for name in known for one in problems(document[name], spec[name], names[name])]
    )


def _unlike(path: str, expected: str, found: Any) -> str:
    return f"{path or 'the document'}: expected {expected}, found {found!r:.60}"


def _fits(value: Any, kind: str) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = {
        "text": isinstance(value, str),
        "number": is_number,
        "integer": is_number and isinstance(value, int),
        "null": value is None,
    }
    return any(fits[one] for one in kind.split(" or "))
