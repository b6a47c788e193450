"""What every route does to every question: read from an oracle run, and what choosing among them could reach.

Shapes: Q questions, M routes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpn.analysis.frontier import Frontier, cost_at, frontier, score_at
from dpn.analysis.resampling import Interval, interval
from dpn.analysis.results import Run, load_run
from dpn.analysis.tally import identities

ROUTER = "router"
"""Folder of the router's own answers."""
GROUPS = ("kind", "grade")
"""Keys of answer lines that may tell kinds of questions apart; the first that all have is used."""
_SAME_COST = 1e-9


class Regret(NamedTuple):
    """What the router loses against a frontier, in percent; each with its interval over questions."""

    accuracy: float
    """At the router's cost: accuracy of the frontier less the router's."""
    accuracy_interval: Interval
    cost: float
    """At the router's accuracy: the router's cost less the frontier's."""
    cost_interval: Interval


@dataclass(frozen=True)
class Oracle:
    """All routes' outcomes on the same questions, and the router's; percent throughout."""

    name: str
    routes: tuple[str, ...]
    cost: np.ndarray
    """(Q, M) share of the dense FLOPs."""
    score: np.ndarray
    """(Q, M) how right the answer was."""
    router: np.ndarray
    """(Q, 2) the router's cost and score."""
    kinds: tuple[str, ...]
    """(Q) kind of every question; empty where the answer lines name none."""

    @property
    def at_router(self) -> tuple[float, float]:
        """Mean cost and accuracy of the router."""
        cost, score = self.router.mean(0)
        return float(cost), float(score)

    @cached_property
    def best(self) -> Frontier:
        """The oracle: a route per question."""
        return frontier(self.cost, self.score)

    @cached_property
    def by_kind(self) -> Frontier | None:
        """The oracle by kind: a route for all questions of a kind."""
        return self._grouped(self.kinds) if self.kinds else None

    @cached_property
    def constant(self) -> Frontier:
        """No choice at all: one route for everything, or a mixture of two by chance."""
        return self._grouped(("all",) * len(self.cost))

    def _grouped(self, groups: Sequence[str]) -> Frontier:
        names = sorted(set(groups))
        members = [np.array([group == name for group in groups]) for name in names]
        return frontier(
            np.stack([self.cost[rows].mean(0) for rows in members]),
            np.stack([self.score[rows].mean(0) for rows in members]),
            np.array([rows.sum() for rows in members]),
        )

    def regret(self, samples: int, seed: int) -> Regret:
        """Hold the router against the oracle, and again on redrawn questions."""
        generator, count = np.random.default_rng(seed), len(self.cost)
        drawn = np.empty((samples, 2))
        for number in range(samples):
            times = np.bincount(generator.integers(count, size=count), minlength=count).astype(np.float64)
            drawn[number] = _lost(times @ self.router / count, self.best.curve(times))
        accuracy, cost = _lost(self.router.mean(0), self.best.curve())
        return Regret(accuracy, interval(drawn[:, 0]), cost, interval(drawn[:, 1]))

    def agreement(self) -> tuple[float, float]:
        """Return percents of the questions that some route answers best: right, and right at least cost.

        Best is the highest score that any route has; questions on which all fail are left out.
        """
        best = self.score.max(1)
        cheapest = np.where(self.score >= best[:, None], self.cost, np.inf).min(1)
        solvable = best > 0
        if not solvable.any():
            return 0.0, 0.0
        cost, score = self.router.T
        is_right = score >= best
        is_cheapest = is_right & (cost <= cheapest + _SAME_COST)
        return 100 * float(is_right[solvable].mean()), 100 * float(is_cheapest[solvable].mean())


def _lost(router: np.ndarray, curve: np.ndarray) -> tuple[float, float]:
    """Return what cost and score (2,) lose: accuracy at equal cost, and cost at equal accuracy."""
    cost, score = map(float, router)
    least = cost_at(curve, score)
    return score_at(curve, cost) - score, cost - (float(curve[-1, 0]) if least is None else least)


def load_oracles(folder: Path, counting: str) -> list[Oracle]:
    """Read every benchmark of an oracle run, and all of them together where there are several.

    Raises:
        ValueError: no router's or no route's answers, or folders with other questions.
    """
    own = load_run(str(folder / ROUTER))
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and "x" in path.name)
    routes = [load_run(str(folder / name)) for name in names]
    if not routes:
        raise ValueError(f"{folder}: no folder of a forced route, like 1x1,2x2,2x2; run llava.eval.oracle")
    for name, run in zip(names, routes, strict=True):
        if run.results.keys() != own.results.keys():
            raise ValueError(
                f"{folder / name} has {', '.join(run.results)}, {ROUTER} has {', '.join(own.results)}; let "
                "llava.eval.oracle finish"
            )
    oracles = [_oracle(benchmark, own, routes, names, counting) for benchmark in own.results]
    return oracles if len(oracles) == 1 else [*oracles, _joined(oracles)]


def _oracle(benchmark: str, own: Run, routes: Sequence[Run], names: Sequence[str], counting: str) -> Oracle:
    rows = own.results[benchmark].answers
    shown = [number for number, row in enumerate(rows) if row["route"]]  # those without an image have none
    asked = identities(rows)
    columns = []
    for name, run in zip(names, routes, strict=True):
        answers = run.results[benchmark].answers
        if identities(answers) != asked:
            raise ValueError(f"{benchmark}: route {name} and the router answered different questions")
        columns.append(_outcomes([answers[number] for number in shown], counting))
    taken = {",".join(rows[number]["route"]) for number in shown}
    if missing := sorted(taken - set(names)):
        raise ValueError(
            f"{benchmark}: the router took {missing[0]}, which wasn't forced; run llava.eval.oracle without "
            "--routes, or with this one, too"
        )
    if not shown:
        raise ValueError(f"{benchmark}: no question with a route; is the checkpoint a plain LLaVA?")
    outcomes = np.stack(columns, axis=1)  # (Q, M, 2)
    key = next((key for key in GROUPS if all(key in rows[number] for number in shown)), None)
    return Oracle(
        benchmark,
        tuple(names),
        outcomes[..., 0],
        outcomes[..., 1],
        _outcomes([rows[number] for number in shown], counting),
        tuple(str(rows[number][key]) for number in shown) if key else (),
    )


def _outcomes(rows: Sequence[dict[str, Any]], counting: str) -> np.ndarray:
    """(Q, 2) cost and score in percent."""
    return 100 * np.array([(row["flops_ratio"][counting], row["score"]) for row in rows])


def _joined(oracles: Sequence[Oracle]) -> Oracle:
    """Put the questions of all benchmarks together."""
    return Oracle(
        "all",
        oracles[0].routes,
        np.concatenate([oracle.cost for oracle in oracles]),
        np.concatenate([oracle.score for oracle in oracles]),
        np.concatenate([oracle.router for oracle in oracles]),
        tuple(kind for oracle in oracles for kind in oracle.kinds) if all(o.kinds for o in oracles) else (),
    )
