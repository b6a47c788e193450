"""The grid of visual tokens that a route leaves in every stage.

Shapes: S DPEs, so S + 1 stages; H x W grid of a crop.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from dpn.experts import Grid, GridPool, Kernel

EDGES = ("ceil", "floor")


class Stage(NamedTuple):
    """What is left of an image's visual tokens between two DPEs."""

    rows: int
    columns: int
    """Of the first crop; LLaVA-1.5 has only one."""
    tokens: int
    """Of all crops together."""


def stages_of(grids: Sequence[Grid], route: Sequence[str], counts: Sequence[int]) -> list[Stage] | None:
    """Follow a route from the grids (crops of H x W) to S + 1 stages.

    Args:
        grids: rows and columns of every crop in front of the decoder.
        route: kernel of every DPE as rows x columns, for example "1x2".
        counts: visual tokens of every decoder layer as they were recorded.

    Returns:
        None where neither way to treat edges (`DpnConfig.edge`) leads to the recorded counts, or the first
        stage isn't what was recorded: then it isn't known which tokens were merged.

    >>> stages_of([(8, 8)], ["1x2"], [64, 32, 32])
    [Stage(rows=8, columns=8, tokens=64), Stage(rows=8, columns=4, tokens=32)]
    """
    kernels = [kernel_of(name) for name in route]
    for edge in EDGES:
        stages = _follow(grids, kernels, edge)
        if distinct([stage.tokens for stage in stages]) == distinct(counts):
            return stages
    return None


def square_grid(tokens: int) -> list[Grid]:
    """Return the square grid of one crop that has so many tokens; [] where there is none."""
    side = math.isqrt(tokens)
    return [(side, side)] if side * side == tokens and tokens else []


def kernel_of(name: str) -> Kernel:
    """Read a kernel's name: "1x2" -> (1, 2)."""
    rows, columns = name.split("x")
    return int(rows), int(columns)


def distinct(counts: Sequence[int]) -> list[int]:
    """Drop repetitions: [64, 64, 32, 32] -> [64, 32]."""
    return [count for count, _ in groupby(counts)]


def _follow(grids: Sequence[Grid], kernels: Sequence[Kernel], edge: str) -> list[Stage]:
    crops = list(grids)
    stages = [_stage(crops)] if crops else []
    for kernel in kernels if crops else []:
        crops = [GridPool(kernel, edge).grid(crop) for crop in crops]
        stages.append(_stage(crops))
    return stages


def _stage(crops: Sequence[Grid]) -> Stage:
    rows, columns = crops[0]
    return Stage(rows, columns, sum(math.prod(crop) for crop in crops))
