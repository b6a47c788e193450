"""What a selector gets of the vision tower and gives to the projector.

A selector picks among the features of every crop, or merges them; it has no weights and keeps nothing
between calls. How many features stay may differ from crop to crop.

Rules, which tests/dpn/selectors/test_common.py holds every selector to:

* A crop's features don't depend on the crops beside it.
* Every crop keeps a feature at least.
* The device is read at most once per call, and only where counts depend on what is seen.

Shapes: C crops, H x W patch grid, N = H * W features of a crop, F feature width, V features that stay.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dpn.experts import Grid
from dpn.method import FrontConfig

_SLACK = 1e-3
"""0.0173611 of 576 features are 10, as 10 / 576 are: shares are typed with a few digits."""


class AttendedFeatures(NamedTuple):
    """The features of a batch of crops, and how the tower's layer that gave them looked at them."""

    features: Tensor
    """(C, N, F), of patches only."""
    attention: Tensor
    """(C, N) float32: what the class token attends to in that layer, mean over heads. The rest of 1 is its
    attention to itself."""
    keys: Tensor
    """(C, N, F) of that layer's attention, its heads side by side."""
    grid: Grid
    """H and W."""


class Selection(NamedTuple):
    """What is left of a batch of crops."""

    features: Tensor
    """(V, F), crop after crop, in the dtype of the tower's."""
    counts: tuple[int, ...]
    """(C,) of every crop; V is their sum."""


Selects = Callable[[AttendedFeatures], Selection]
"""A selector with its settings."""
SelectorFunction = Callable[[Any, AttendedFeatures], Selection]
"""A selector: its configuration and what it picks from."""


class SelectorConfig(FrontConfig):
    """Settings of a method that picks among the tower's features."""

    def check(self, num_features: int) -> None:
        """Refuse settings that a crop of N features can't follow; ValueError."""


def check_amount(name: str, value: float) -> None:
    """Refuse what is neither a share (below 1) nor a count (a whole number from 1)."""
    if not (0 <= value < math.inf and (value < 1 or value == int(value))):
        raise ValueError(
            f"{name} is a share of the features below 1, or a whole number of them from 1; got {value}"
        )


def amount_of(value: float, total: int) -> int:
    """Count what a share (below 1, rounded down) or a count means among `total` features.

    >>> amount_of(54 / 576, 64), amount_of(54, 576), amount_of(0.5, 3)
    (6, 54, 1)
    """
    return int(value * total + _SLACK) if value < 1 else int(value)


def similarities(keys: Tensor, others: Tensor) -> Tensor:
    """Compare keys (C, N, F) with others (C, M, F) by the cosine between them: (C, N, M) float32."""
    with torch.autocast(keys.device.type, enabled=False):
        one, other = (functional.normalize(side.float(), dim=-1) for side in (keys, others))
        return one @ other.transpose(1, 2)  # (C, N, M)
