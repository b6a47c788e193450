"""The words of `--reduction METHOD [FIELD=VALUE ...]`: typed by the method's dataclass, with "did you mean".

>>> parse_reduction(["dpn", "preset=paper", "layers=10,20,30"]).layers
(10, 20, 30)
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from dpn.method import Kernel, MethodConfig
from dpn.methods import METHODS

KERNEL_FIELDS = ("kernels", "route")


def parse_reduction(words: Sequence[str]) -> MethodConfig | None:
    """Build the method's configuration; no words or "none" mean no reduction.

    Raises:
        ValueError: unknown method or field (with the nearest known name), or a value of the wrong form.
    """
    if not words or list(words) == ["none"]:
        return None
    method, given = parse_fields(words)
    return METHODS[method].from_fields(**given)


def parse_fields(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Read the words into the method's name and the typed fields that were given."""
    method, *assignments = words
    if method not in METHODS:
        raise ValueError(f"unknown reduction {method!r}{_did_you_mean(method, ['none', *METHODS])}")
    types = {field.name: field.type for field in fields(METHODS[method])}  # pyright: ignore[reportArgumentType]
    given: dict[str, Any] = {}
    for word in assignments:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"--reduction {method} takes FIELD=VALUE words, got {word!r}")
        if name not in types:
            raise ValueError(f"--reduction {method} has no field {name!r}{_did_you_mean(name, list(types))}")
        if name in given:
            raise ValueError(f"--reduction {method} names {name} twice")
        given[name] = _read(name, str(types[name]), text)
    return method, given


def parse_route(text: str) -> tuple[Kernel, ...]:
    """Read kernels: "1x2,2x2" -> ((1, 2), (2, 2))."""
    found = [re.fullmatch(r"(\d+)x(\d+)", part.strip()) for part in text.split(",")]
    if not all(found):
        raise ValueError(
            f"kernels are written ROWSxCOLUMNS with commas between, like 1x1,1x2,2x2; got {text!r}"
        )
    return tuple((int(match[1]), int(match[2])) for match in found if match)


def expert_indices(routes: Sequence[Sequence[str]], kernels: Sequence[Kernel]) -> Tensor:
    """Turn routes like [["1x1", "2x2", "1x2"], ...] into the (B, S) expert indices to force a pass to.

    Raises:
        ValueError: a kernel that is none of the experts.
    """
    parsed = [parse_route(",".join(route)) for route in routes]
    if unknown := {kernel for route in parsed for kernel in route} - set(kernels):
        raise ValueError(f"routes name {sorted(unknown)}, but the experts are {list(kernels)}")
    return torch.tensor([[list(kernels).index(kernel) for kernel in route] for route in parsed])


def _read(name: str, kind: str, text: str) -> Any:
    """Convert one value by the declared type of its field."""
    try:
        if name in KERNEL_FIELDS:
            return parse_route(text)
        if "tuple[int" in kind:
            return tuple(int(part) for part in text.split(","))
        if "tuple[float" in kind:
            return tuple(float(part) for part in text.split(","))
        if "int" in kind:
            return int(text)
        return float(text) if "float" in kind else text
    except ValueError as error:
        raise ValueError(f"--reduction field {name}: can't read {text!r} as {kind}: {error}") from error


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{hint} (known: {', '.join(known)})"
