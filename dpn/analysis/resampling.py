"""Intervals and tests by drawing questions, and seeds where there are several, again and again.

Shapes: R replicates, U units of a benchmark, K sums, S seeds.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dpn.analysis.tally import Tally

_AT_ONCE = 4_000_000
"""Draws that are held at one time."""
_LOW, _HIGH = 2.5, 97.5


class Interval(NamedTuple):
    """The middle 95 % of the replicates."""

    low: float
    high: float


class PairedTest(NamedTuple):
    """Whether two models differ on the same questions."""

    name: str
    """`paired bootstrap` or `McNemar`."""
    p: float
    """Two-sided."""


class Draws:
    """The same draws for everybody: two models on the same questions get the same ones, so they are paired.

    Every replicate draws as many units of a benchmark as it has, and as many seeds as there are, with
    replacement. A benchmark is drawn once for all seeds that answered the same questions.
    """

    def __init__(self, samples: int = 2000, seed: int = 0) -> None:
        if samples < 1:
            raise ValueError(f"the bootstrap needs 1 or more replicates, got {samples}")
        if seed < 0:
            raise ValueError(f"the bootstrap's seed must be 0 or more, got {seed}")
        self.samples, self.seed = samples, seed
        self._known: dict[tuple[int, ...], tuple[Sequence[Tally], np.ndarray]] = {}

    def headlines(self, tallies: Sequence[Tally]) -> np.ndarray:
        """Return the mean headline over the seeds drawn: one tally per seed to (R,)."""
        key = tuple(map(id, tallies))
        if key not in self._known:
            values = np.stack([tally.headline(self._sums(tally)) for tally in tallies], axis=1)  # (R, S)
            means = np.take_along_axis(values, self._seeds(len(tallies)), axis=1).mean(1)
            self._known[key] = tallies, means  # the tallies are kept, so that no other takes their id
        return self._known[key][1]

    def _seeds(self, count: int) -> np.ndarray:
        """(R, S) which seeds are drawn."""
        return np.random.default_rng([self.seed, count]).integers(count, size=(self.samples, count))

    def _sums(self, tally: Tally) -> np.ndarray:
        """(R, K) sums over the units drawn."""
        count = len(tally.units)
        generator = np.random.default_rng([self.seed, _digest(tally)])
        step = max(1, _AT_ONCE // count)
        parts = []
        for start in range(0, self.samples, step):
            size = min(step, self.samples - start)
            drawn = generator.integers(count, size=(size, count))
            cells = (drawn + count * np.arange(size)[:, None]).ravel()
            times = np.bincount(cells, minlength=size * count).reshape(size, count)  # (r, U)
            parts.append(times @ tally.sums)
        return np.concatenate(parts)


def interval(replicates: np.ndarray) -> Interval:
    """Return the percentile interval of (R,) replicates."""
    low, high = np.percentile(replicates, (_LOW, _HIGH))
    return Interval(float(low), float(high))


def bootstrap_test(differences: np.ndarray) -> PairedTest:
    """Test whether a difference is 0 by how many of its (R,) replicates lie on the other side."""
    rarer = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return PairedTest("paired bootstrap", min(1.0, 2 * (1 + int(rarer)) / (1 + len(differences))))


def mcnemar_test(ours: Tally, other: Tally) -> PairedTest:
    """Test exactly whether two models are right equally often, by the units that only one of them got.

    >>> half = lambda values: np.array([[value, 1.0] for value in values])
    >>> from dpn.analysis.tally import _ratio
    >>> units = tuple(range(6))
    >>> a, b = Tally(units, half([1, 1, 1, 1, 1, 0]), _ratio), Tally(units, half([0, 0, 0, 0, 0, 0]), _ratio)
    >>> mcnemar_test(a, b)  # 5 of 5 one way: 2 / 2**5
    PairedTest(name='McNemar', p=0.0625)
    """
    difference = ours.sums[:, 0] - other.sums[:, 0]
    gained, lost = int(np.sum(difference > 0)), int(np.sum(difference < 0))
    total = gained + lost
    tail = sum(math.comb(total, k) for k in range(min(gained, lost) + 1))
    return PairedTest("McNemar", min(1.0, 2 * tail / 2**total))


def are_paired(ours: Sequence[Tally], other: Sequence[Tally]) -> bool:
    """Say whether two models answered the same questions.

    Seed by seed where they have equally many seeds, else all seeds the same ones.
    """
    if len(ours) == len(other):
        return all(a.units == b.units for a, b in zip(ours, other, strict=True))
    return len({tally.units for tally in (*ours, *other)}) == 1


def _digest(tally: Tally) -> int:
    """Identify the questions of a tally."""
    text = repr(tally.units).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
