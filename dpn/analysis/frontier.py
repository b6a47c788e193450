"""The best that choosing routes could do: accuracy against cost if the outcome of every route were known.

Shapes: Q questions (or groups of them), M routes, G segments, R replicates.
"""

from typing import NamedTuple

import numpy as np

_ROUNDING = 1e-9


class Frontier(NamedTuple):
    """Every question starts on its cheapest route and is upgraded in the order of what an upgrade buys.

    This is the exact optimum of maximising mean accuracy under a limit on the mean cost, where one question
    may be shared between two routes: every question's routes are replaced by their concave hull.
    """

    weights: np.ndarray
    """(Q,) how many questions each stands for."""
    start: np.ndarray
    """(Q, 2) cost and score of the cheapest route."""
    owner: np.ndarray
    """(G,) question of every upgrade, most accuracy per cost first."""
    steps: np.ndarray
    """(G, 2) what every upgrade adds to cost and score."""

    def curve(self, times: np.ndarray | None = None) -> np.ndarray:
        """Return its corners, (G + 1, 2) mean cost and mean score; `times` (Q,) redraws the questions."""
        weights = self.weights if times is None else self.weights * times
        first = weights @ self.start  # (2,)
        added = weights[self.owner, None] * self.steps  # (G, 2)
        return np.vstack([first, first + np.cumsum(added, axis=0)]) / weights.sum()


def frontier(cost: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> Frontier:
    """Build the frontier of questions whose every route was tried.

    Args:
        cost: (Q, M) cost of every route.
        score: (Q, M) how right the answer was.
        weights: (Q,) how many questions each row stands for; None: one.

    >>> frontier(np.array([[1.0, 2.0], [1.0, 3.0]]), np.array([[0.0, 1.0], [0.0, 1.0]])).curve().tolist()
    [[1.0, 0.0], [1.5, 0.5], [2.5, 1.0]]
    """
    start, owner, steps = [], [], []
    for question, points in enumerate(np.stack([cost, score], axis=-1)):
        corners = _concave_hull(points)
        start.append(corners[0])
        steps.append(np.diff(corners, axis=0))
        owner += [question] * (len(corners) - 1)
    added = np.concatenate(steps)
    order = np.argsort(-added[:, 1] / added[:, 0], kind="stable")
    return Frontier(
        np.ones(len(start)) if weights is None else weights.astype(np.float64),
        np.array(start),
        np.array(owner, dtype=int)[order],
        added[order],
    )


def score_at(curve: np.ndarray, cost: float) -> float:
    """Return the best score that a mean cost buys; below the cheapest routes theirs."""
    return float(np.interp(cost, curve[:, 0], curve[:, 1]))


def cost_at(curve: np.ndarray, score: float) -> float | None:
    """Return the least mean cost of a score; None where no cost buys it."""
    if score > curve[-1, 1] + _ROUNDING:
        return None
    return float(np.interp(score, curve[:, 1], curve[:, 0]))


def _concave_hull(points: np.ndarray) -> np.ndarray:
    """Keep of (M, 2) costs and scores the corners of the upper hull, from the cheapest upwards: (C, 2)."""
    corners: list[np.ndarray] = []
    for point in points[np.lexsort((-points[:, 1], points[:, 0]))]:  # by cost, the best of equals first
        if corners and point[1] <= corners[-1][1]:
            continue  # costs as much or more and is no better
        while len(corners) > 1 and _is_below(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    return np.array(corners)


def _is_below(left: np.ndarray, middle: np.ndarray, right: np.ndarray) -> bool:
    """Whether the middle point lies on or below the line between its neighbours."""
    (across, up), (all_across, all_up) = middle - left, right - left
    return bool(up * all_across <= all_up * across)
