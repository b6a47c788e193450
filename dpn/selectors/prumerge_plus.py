"""PruMerge+: as many features as the class token singles out, evenly spaced ones, and the others merged in.

Shang et al., *LLaVA-PruMerge: Adaptive Token Reduction for Efficient Large Multimodal Models*, 2024,
section 3: outliers among the class token's attention are kept (above the third quartile by 1.5 times the
distance of the quartiles), so that a crowded image keeps more than an empty one. PruMerge+ adds spatially
uniform samples. Every kept feature takes in those of the others whose keys are most like its own, weighted
by the class token's attention. Kept features stay in the order of the image; a feature is kept once,
whatever it was kept for.

Chosen here, where papers leave things open: attention and keys are those of the layer whose output LLaVA
takes; samples are a lattice of about `uniform` cells for every outlier, which leaves about a quarter where a
sixteenth are outliers; likeness is the cosine of keys of all heads; a kept feature counts among its
neighbours and their weights sum to 1, so that a token has a feature's scale. Without any outlier the feature
with the most attention is taken for one.

Shapes: C crops, H x W grid, N = H * W features of a crop, F feature width, V features that stay.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dpn.experts import Grid, to_device
from dpn.selectors.base import (
    AttendedFeatures,
    Selection,
    SelectorConfig,
    amount_of,
    check_amount,
    similarities,
)


@dataclass(frozen=True, kw_only=True)
class PruMergePlusConfig(SelectorConfig):
    """What is kept, and how much of the others is merged into it."""

    method: ClassVar[str] = "prumerge_plus"
    may_change: ClassVar[tuple[str, ...]] = ("iqr", "uniform", "neighbours")

    iqr: float = 1.5
    """Outliers lie above the third quartile by this many times the distance of the quartiles."""
    uniform: float = 3.0
    """Spatially uniform samples for every outlier; 0 is PruMerge without the plus."""
    neighbours: float = 32 / 576
    """Features that every kept one takes in: a share of the crop's below 1, a count from 1; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        for name in ("iqr", "uniform"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number of 0 or more, got {getattr(self, name)}")
        check_amount("neighbours", self.neighbours)


def prumerge_plus(config: PruMergePlusConfig, seen: AttendedFeatures) -> Selection:
    """Keep outliers and samples of every crop and merge the others in; reads the device once, for counts."""
    outliers = find_outliers(seen.attention, config.iqr).cpu().numpy()  # (C, N)
    kept = outliers.copy()
    for crop, count in enumerate(outliers.sum(1)):
        kept[crop, lattice(seen.grid, round(config.uniform * int(count)))] = True
    neighbours = min(amount_of(config.neighbours, kept.shape[1]), kept.shape[1])
    merged = merge_others(seen, to_device(kept, seen.features.device), neighbours)  # (C, N, F)
    rows = to_device(np.flatnonzero(kept), merged.device)
    return Selection(merged.flatten(0, 1)[rows], tuple(kept.sum(1).tolist()))


def find_outliers(attention: Tensor, factor: float) -> Tensor:
    """Tell which of every crop's attentions (C, N) stand out, at least one of each: (C, N) bool."""
    quartiles = torch.quantile(attention, attention.new_tensor([0.25, 0.75]), dim=1)[..., None]  # (2, C, 1)
    limit = quartiles[1] + factor * (quartiles[1] - quartiles[0])  # (C, 1)
    first = torch.zeros_like(attention, dtype=torch.bool).scatter_(1, attention.argmax(1, keepdim=True), True)
    return (attention > limit) | first


def lattice(grid: Grid, count: int) -> np.ndarray:
    """Spread about `count` cells evenly over a grid: their numbers, row by row.

    As many rows and columns as make cells about square, each in the middle of its share of the grid.

    >>> lattice((4, 4), 4).tolist(), lattice((2, 4), 2).tolist(), lattice((4, 4), 0).tolist()
    ([5, 7, 13, 15], [5, 7], [])
    """
    if count < 1:
        return np.zeros(0, np.int64)
    height, width = grid
    rows = min(max(round((count * height / width) ** 0.5), 1), height)
    columns = min(max(round(count / rows), 1), width)
    down = (np.arange(rows) * 2 + 1) * height // (2 * rows)  # (rows,)
    across = (np.arange(columns) * 2 + 1) * width // (2 * columns)
    return (down[:, None] * width + across).flatten()


def merge_others(seen: AttendedFeatures, kept: Tensor, neighbours: int) -> Tensor:
    """Give every feature the mean of itself and the most similar that aren't kept (C, N): (C, N, F).

    Weighted by attention. Where fewer than `neighbours` aren't kept, all of those are taken in.
    """
    attention = seen.attention.clamp(min=torch.finfo(seen.attention.dtype).tiny)  # (C, N)
    likeness = similarities(seen.keys, seen.keys).masked_fill(kept[:, None], float("-inf"))  # (C, N, N)
    nearest = likeness.topk(neighbours, dim=2).indices  # (C, N, neighbours)
    weights = torch.zeros_like(likeness).scatter_(2, nearest, 1.0)
    weights = weights * attention.masked_fill(kept, 0.0)[:, None] + attention.diag_embed()  # (C, N, N)
    weights = weights / weights.sum(2, keepdim=True)
    return (weights @ seen.features.float()).to(seen.features.dtype)  # (C, N, F)
