"""A projector's options: words of a command line, an object in config.json, typed by its dataclass.

>>> parse_projector("token_packer", ["scale=3"])
TokenPackerConfig(scale=3, layers=())
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from dpn.projectors.base import ProjectorConfig
from dpn.projectors.build import PROJECTORS

_FLAG = "--mm_projector_options"
_FIELD = "mm_projector_options"


class _Kind(NamedTuple):
    """A type that options may have."""

    described: str
    form: str
    """Regular expression of its text."""
    read: Callable[[str], Any]
    """From that text."""
    restore: Callable[[Any], Any]
    """From JSON; None where it is something else."""


def _numbers(value: Any) -> tuple[int, ...] | None:
    is_list = isinstance(value, list | tuple) and all(type(number) is int for number in value)
    return tuple(value) if is_list else None


_KINDS: dict[Any, _Kind] = {
    int: _Kind("a whole number", r"-?\d+", int, lambda value: value if type(value) is int else None),
    tuple[int, ...]: _Kind(
        "whole numbers with commas between",
        r"-?\d+(,-?\d+)*",
        lambda text: tuple(map(int, text.split(","))),
        _numbers,
    ),
}
"""By the declared type of a field."""


def parse_projector(name: str, words: Sequence[str]) -> ProjectorConfig:
    """Read FIELD=VALUE words; fields that are left out have their defaults.

    Raises:
        ValueError: no such field (with the nearest known name), one named twice, or a value of another type.
    """
    kinds = _kinds_of(name)
    given: dict[str, Any] = {}
    for word in words:
        field, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{_FLAG} takes FIELD=VALUE words, got {word!r}")
        if field not in kinds:
            raise ValueError(f"{_FLAG}: {name} has no {field!r}{_known(field, kinds)}")
        if field in given:
            raise ValueError(f"{_FLAG} names {field} twice")
        kind = kinds[field]
        if not re.fullmatch(kind.form, text):
            raise ValueError(f"{_FLAG}: {field} takes {kind.described}, got {text!r}")
        given[field] = kind.read(text)
    return PROJECTORS[name].config_class(**given)


def projector_from_dict(name: str, saved: Any) -> ProjectorConfig:
    """Read what `projector_to_dict` wrote into a config.json; fields that aren't there have their defaults.

    Raises:
        ValueError: no object, a field that this version doesn't have, or a value of another type.
    """
    if not isinstance(saved, Mapping):
        raise ValueError(f"{_FIELD} must be an object of fields, found {saved!r:.60}")
    kinds = _kinds_of(name)
    given: dict[str, Any] = {}
    for field, value in saved.items():
        if field not in kinds:
            raise ValueError(f"{_FIELD}: {name} has no {field!r}{_known(str(field), kinds)}")
        given[field] = kinds[field].restore(value)
        if given[field] is None:
            raise ValueError(f"{_FIELD}: {field} must be {kinds[field].described}, found {value!r:.60}")
    return PROJECTORS[name].config_class(**given)


def projector_to_dict(config: ProjectorConfig) -> dict[str, Any]:
    """Give all options in the form that config.json stores."""
    return json.loads(json.dumps(asdict(config)))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Write the known name that is nearest, "" where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _known(field: str, kinds: Iterable[str]) -> str:
    return f"{did_you_mean(field, kinds)} (known: {', '.join(kinds)})"


def _kinds_of(name: str) -> dict[str, _Kind]:
    return {field.name: _KINDS[field.type] for field in fields(PROJECTORS[name].config_class)}
