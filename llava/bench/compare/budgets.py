"""From a budget to the settings of a method that come nearest to it.

A budget is a share of the dense visual FLOPs (Eq. 8). Every method has a knob, the field that decides how
much it keeps; all values of it are tried on paper, and the nearest is taken. The knob is found by its name,
so that a new row of `METHODS` or `PROJECTORS` needs nothing here where its knob has one of these names.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from llava.bench.compare.settings import (
    DENSE,
    Setting,
    field_names,
    read_setting,
    visual_share,
    visual_tokens,
)
from llava.bench.shapes import PATCH, Shape

KERNELS = ("1x1", "1x2", "2x2")
"""DPN's experts, which static pooling takes, too."""


class Choice(NamedTuple):
    """Settings of a method, and what they come to."""

    setting: Setting
    share: float
    """Of the dense visual FLOPs, computed."""


def _routes(shape: Shape) -> list[str]:
    return [",".join(route) for route in itertools.product(KERNELS, repeat=len(shape.dpe_layers))]


def _counts(shape: Shape) -> list[str]:
    return [str(count) for count in range(1, shape.visual + 1)]


def _few(most: int, steps: int = 24) -> list[str]:
    """Spread counts from 1 to `most`: what each comes to is found by running a tiny model."""
    return [str(count) for count in sorted({max(1, most * step // steps) for step in range(1, steps + 1)})]


KNOBS: dict[str, Callable[[Shape], Sequence[str]]] = {
    "route": _routes,
    "kernels": _routes,
    "ratio": lambda _: [f"{step / 1000:.3f}" for step in range(1000)],
    "keeps": lambda shape: [
        ",".join([f"{step / 1000:.3f}"] * len(shape.dpe_layers)) for step in range(1, 1001)
    ],
    "num_queries": _counts,
    "scale": lambda shape: [str(scale) for scale in range(1, shape.grid + 1) if shape.grid % scale == 0],
    "dominant": lambda shape: _few(shape.visual * 7 // 8),  # others are left to be merged
    "uniform": lambda _: [str(samples) for samples in range(24)],
    "side": lambda shape: [str(PATCH * rows) for rows in range(1, shape.grid + 1)],
    "layer": lambda shape: [str(layer) for layer in range(1, shape.num_layers)],
}
"""Fields that decide how much is kept, and the values to try; a method's knob is the first that it has."""


def choices(method: str, shape: Shape) -> list[Choice]:
    """List everything that a method's knob can give; a method without a knob has its defaults alone."""
    names = field_names(method)
    knob = next((name for name in KNOBS if name in names), None)
    values = [None] if knob is None else KNOBS[knob](shape)
    return [_choice(method, () if value is None else (f"{knob}={value}",), shape) for value in values]


def nearest(found: Sequence[Choice], budget: float) -> Choice:
    """Take the choice whose share is nearest to a budget; of equally near ones, the first."""
    return min(found, key=lambda choice: abs(choice.share - budget))


def read_choice(text: str, shape: Shape) -> Choice:
    """Read settings given in one word, "fastv layer=3 ratio=0.5", which are timed as they are.

    Raises:
        ValueError: a field or value that the method doesn't have, or that doesn't fit the decoder.
    """
    method, *words = text.split()
    return Choice(DENSE, 1.0) if method == "dense" else _choice(method, words, shape)


def _choice(method: str, words: Sequence[str], shape: Shape) -> Choice:
    setting = read_setting(method, words, shape)
    return Choice(setting, visual_share(visual_tokens(setting, shape), shape))
