"""Budgets at inference: one number shifts the choices of a trained router towards cheaper experts.

A DPE chooses argmax_e (logits_e + shift * direction_e / temperature). The direction of an expert grows with
what it saves (design 3 and 6: a bias of the logits along the rates; for `objective=value`, more weight on
its cost), so a larger shift never chooses a dearer expert at the same state. Which shift gives which mean
share of the dense FLOPs depends on the questions: `next_shifts` walks through all routes that a sample
takes as it grows, and a `BudgetTable` holds the means.

Shapes: B samples, S DPE layers, E experts, K rows of a table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from dpn.routing import UNROUTED, Routing

LOWEST, HIGHEST = -1000.0, 1000.0
"""Shifts at which only the direction counts; float32 still tells 1e-4 apart there."""
TOLERANCE = 0.02
"""How far the nearest share of a table may lie from the budget asked for."""
ROUNDING = 0.001
"""How far below the cheapest share a budget may lie: shares are said with three digits."""
_NUDGE = 1e-4
"""How far behind the point where two experts draw level the next route is looked for (relative above 1)."""
_NOISE = 1e-3
"""How far behind it an expert not yet chosen counts as late by rounding; beyond, it isn't allowed."""
_THIN = 0.002
"""Rows of a table whose shares differ by less are merged."""


class Steps(NamedTuple):
    """What one sample costs at every shift: `shares[..., k]` from `shifts[k]` up to the next one."""

    shifts: np.ndarray
    """(K,) increasing; the first is LOWEST."""
    shares: np.ndarray
    """(C, K): share of the dense FLOPs in each of C countings."""

    def at(self, shift: float) -> np.ndarray:
        """Give the shares (C,) at a shift."""
        return self.shares[:, max(0, int(np.searchsorted(self.shifts, shift, side="right")) - 1)]


def next_shifts(routing: Routing, shift: np.ndarray, temperature: float) -> np.ndarray:
    """Give the next shift at which every sample takes another route: (B,), inf where none is left.

    Up to there no choice changes, so every state, and with it the logits, stay what they are: it's exact.

    Args:
        routing: decisions at `shift`; its logits are those without the shift, divided by the temperature.
        shift: (B,) the shift of every sample.
        temperature: `DpnConfig.temperature`.
    """
    logits = np.stack([stage.detach().float().cpu().numpy() for stage in routing.logits])  # (S, B, E)
    directions = np.stack([np.broadcast_to(d, logits.shape[1:]) for d in routing.directions])  # (S, B, E)
    choice = np.stack(routing.choices)[..., None]  # (S, B, 1)
    index = np.maximum(choice, 0)
    saved = directions - np.take_along_axis(directions, index, -1)  # (S, B, E)
    lead = (np.take_along_axis(logits, index, -1) - logits).astype(np.float64) * temperature  # (S, B, E)
    level = np.divide(lead, saved, out=np.full(lead.shape, np.inf), where=saved > 0)
    now = shift[None, :, None]
    is_next = (choice != UNROUTED) & (level > now - _NOISE * np.maximum(1, np.abs(now)))
    first = np.where(is_next, np.maximum(level, now), np.inf).min((0, 2))  # (B,)
    behind = first + _NUDGE * np.maximum(1, np.abs(first))
    return np.where(behind < HIGHEST, behind, np.inf)


@dataclass(frozen=True)
class BudgetTable:
    """Mean share of the dense FLOPs at every shift; row k holds from `shifts[k]` up to the next one."""

    shifts: tuple[float, ...]
    """(K,) increasing, from LOWEST to HIGHEST."""
    shares: Mapping[str, tuple[float, ...]]
    """Per counting (K,), never increasing."""

    def __post_init__(self) -> None:
        """Refuse what is no table, for example an edited file."""
        shifts = np.array(self.shifts, dtype=np.float64)
        if len(shifts) < 2 or not (np.isfinite(shifts).all() and (np.diff(shifts) > 0).all()):
            raise ValueError(f"a budget table needs two or more increasing shifts, found {self.shifts!r:.80}")
        for counting, column in self.shares.items():
            shares = np.array(column, dtype=np.float64)
            if len(shares) != len(shifts) or not ((shares > 0).all() and (np.diff(shares) <= 0).all()):
                raise ValueError(
                    f"a budget table needs one positive share per shift ({len(shifts)}), never increasing; "
                    f"found for {counting}: {column!r:.80}"
                )

    @classmethod
    def of(cls, samples: Sequence[Steps], countings: Sequence[str]) -> Self:
        """Average the steps of all samples, C countings each, into a monotone table.

        A later DPE may answer a shorter sequence with a dearer expert, so a mean may rise a little with the
        shift; such rows are pooled to their mean (isotonic regression).
        """
        events = sorted({float(shift) for sample in samples for shift in sample.shifts})
        totals = np.zeros((len(countings), len(events)))  # (C, K)
        for sample in samples:
            rows = np.searchsorted(sample.shifts, events, side="right") - 1  # (K,)
            totals += sample.shares[:, rows]
        means = np.stack([_falling(column / len(samples)) for column in totals])  # (C, K)
        kept = _thinned(means)
        shifts = (*(events[row] for row in kept), HIGHEST)
        means = np.concatenate([means[:, kept], means[:, -1:]], axis=1)
        return cls(
            shifts, {name: tuple(map(float, column)) for name, column in zip(countings, means, strict=True)}
        )

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Read `to_dict` back.

        Raises:
            ValueError: something is missing, or it is no table.
        """
        try:
            columns = {name: tuple(float(value) for value in column) for name, column in saved.items()}
            shifts = columns.pop("shift")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"a budget table is an object of number lists, one of them `shift`, found {saved!r:.80}"
            ) from error
        return cls(shifts, columns)

    def to_dict(self) -> dict[str, list[float]]:
        """Give the JSON-ready form: the columns."""
        return {"shift": list(self.shifts), **{name: list(column) for name, column in self.shares.items()}}

    def row_for(self, budget: float, counting: str) -> int:
        """Find the row whose mean share is nearest to a budget.

        Raises:
            ValueError: the budget is no share, the counting unknown, or no row is near; what is is named.
        """
        if counting not in self.shares:
            raise ValueError(f"counting must be one of {', '.join(self.shares)}, got {counting!r}")
        if not 0 < budget <= 1:
            raise ValueError(f"budget is a share of the dense FLOPs above 0 and up to 1, got {budget}")
        shares = np.array(self.shares[counting])
        dearest, cheapest = shares[0], shares[-1]
        if budget > dearest + TOLERANCE or budget < cheapest - ROUNDING:
            raise ValueError(
                f"budget={budget} ({counting}) is out of reach: with these kernels and layers the mean share "
                f"of the dense FLOPs goes from {cheapest:.3f} to {dearest:.3f}"
            )
        row = int(np.abs(shares - budget).argmin())
        if abs(shares[row] - budget) <= TOLERANCE:
            return row
        above, below = shares[shares > budget].min(), shares[shares < budget].max()
        raise ValueError(
            f"budget={budget} ({counting}) is out of reach: this router changes the routes of many questions "
            f"at once, and has nothing between {below:.3f} and {above:.3f}; ask for one of these"
        )

    def shift_for(self, budget: float, counting: str) -> float:
        """Give the shift whose mean share is nearest to a budget, in the middle of its row.

        Raises:
            ValueError: as `row_for`.
        """
        row = self.row_for(budget, counting)
        if row in (0, len(self.shifts) - 1):
            return self.shifts[row]
        return (self.shifts[row] + self.shifts[row + 1]) / 2


def _falling(values: np.ndarray) -> np.ndarray:
    """Give the never increasing sequence nearest to (K,) values, by pooling adjacent violators.

    >>> _falling(np.array([3.0, 1.0, 2.0, 0.0])).tolist()
    [3.0, 1.5, 1.5, 0.0]
    """
    pools: list[list[float]] = []  # [mean, size]
    for value in values:
        pools.append([float(value), 1])
        while len(pools) > 1 and pools[-1][0] > pools[-2][0]:
            mean, size = pools.pop()
            total = size + pools[-1][1]
            pools[-1] = [(mean * size + pools[-1][0] * pools[-1][1]) / total, total]
    return np.concatenate([np.full(int(size), mean) for mean, size in pools])


def _thinned(means: np.ndarray) -> list[int]:
    """Keep the first of (C, K) columns and each that differs from the last one kept."""
    kept = [0]
    for column in range(1, means.shape[1]):
        if np.abs(means[:, column] - means[:, kept[-1]]).max() >= _THIN:
            kept.append(column)
    return kept
