"""Rows that a user fills: result folders of one method, one per seed, and what is measured from them."""

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpn.analysis.resampling import (
    Draws,
    Interval,
    PairedTest,
    are_paired,
    bootstrap_test,
    interval,
    mcnemar_test,
)
from dpn.analysis.results import POINTS, Result, Run, load_run, mean, natural_order
from dpn.analysis.tally import NoTallyError, Tally, tally

_DENSE = "dense"
_OWN = "+"
"""In front of the name of a row that the paper's table doesn't have."""


class Score(NamedTuple):
    """One benchmark of one row, over its seeds."""

    value: float
    """Mean over seeds, as papers report it."""
    interval: Interval | None
    reason: str
    """Why there is no interval; "" where there is one."""
    protocol: str
    num_questions: int


class Difference(NamedTuple):
    """A row less its baseline."""

    value: float
    interval: Interval | None
    test: PairedTest | None
    reason: str
    """Why there is no test; "" where there is one."""


@dataclass(frozen=True)
class Arm:
    """One row: the same method, run once per seed."""

    key: str
    """Of the paper's row, or the name of a row of the user's own."""
    is_own: bool
    runs: tuple[Run, ...]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Benchmarks that every seed has a score on."""
        return tuple(self.runs[0].results)

    def results(self, benchmark: str) -> list[Result]:
        """Return one benchmark's result of every seed."""
        return [run.results[benchmark] for run in self.runs]

    def mean_cost(self, benchmark: str, path: Sequence[str]) -> float | None:
        """Average a number of scores.json over seeds, found by its keys; None where a file lacks it."""
        found = [_dig(result.scores, path) for result in self.results(benchmark)]
        return None if None in found else mean(value for value in found if value is not None)

    @cached_property
    def tallies(self) -> dict[str, list[Tally] | NoTallyError]:
        """Every benchmark's answers of every seed, taken apart, or why they can't be."""
        found: dict[str, list[Tally] | NoTallyError] = {}
        for benchmark in self.benchmarks:
            try:
                found[benchmark] = [tally(benchmark, result) for result in self.results(benchmark)]
            except NoTallyError as error:
                found[benchmark] = error
        return found

    def value(self, benchmark: str) -> float:
        """Return the mean headline over seeds."""
        return mean(result.accuracy for result in self.results(benchmark))

    def score(self, benchmark: str, draws: Draws) -> Score:
        """Return the headline with its interval over questions and seeds."""
        first = self.results(benchmark)[0]
        tallies = self.tallies[benchmark]
        is_known = not isinstance(tallies, NoTallyError)
        return Score(
            self.value(benchmark),
            interval(draws.headlines(tallies)) if is_known else None,
            "" if is_known else str(tallies),
            first.scores["protocol"],
            len(first.answers),
        )

    def average(self, benchmarks: Sequence[str]) -> float:
        """Average over benchmarks, MME's points as a twentieth."""
        return mean(self.value(benchmark) / POINTS.get(benchmark, 1.0) for benchmark in benchmarks)

    def averages(self, benchmarks: Sequence[str], draws: Draws) -> np.ndarray | None:
        """Return (R,) replicates of the average; None where one benchmark has none."""
        parts = []
        for benchmark in benchmarks:
            tallies = self.tallies[benchmark]
            if isinstance(tallies, NoTallyError):
                return None
            parts.append(draws.headlines(tallies) / POINTS.get(benchmark, 1.0))
        return np.mean(parts, axis=0)


def compare(ours: Arm, other: Arm, benchmark: str, draws: Draws) -> Difference:
    """Test a row against its baseline on one benchmark, question by question."""
    value = ours.value(benchmark) - other.value(benchmark)
    mine, theirs = ours.tallies[benchmark], other.tallies[benchmark]
    for tallies in (mine, theirs):
        if isinstance(tallies, NoTallyError):
            return Difference(value, None, None, f"not available: {tallies}")
    assert not isinstance(mine, NoTallyError)
    assert not isinstance(theirs, NoTallyError)
    if not are_paired(mine, theirs):
        return Difference(value, None, None, "not available: they answered other questions")
    differences = draws.headlines(mine) - draws.headlines(theirs)
    is_exact = len(mine) == len(theirs) == 1 and mine[0].is_share and theirs[0].is_share
    test = mcnemar_test(mine[0], theirs[0]) if is_exact else bootstrap_test(differences)
    return Difference(value, interval(differences), test, "")


def compare_averages(ours: Arm, other: Arm, benchmarks: Sequence[str], draws: Draws) -> Difference:
    """Test the average over benchmarks against the baseline's."""
    value = ours.average(benchmarks) - other.average(benchmarks)
    for benchmark in benchmarks:
        reason = compare(ours, other, benchmark, draws).reason
        if reason:
            return Difference(value, None, None, f"{benchmark}: {reason}")
    mine, theirs = ours.averages(benchmarks, draws), other.averages(benchmarks, draws)
    assert mine is not None
    assert theirs is not None
    return Difference(value, interval(mine - theirs), bootstrap_test(mine - theirs), "")


def load_arms(
    words: Sequence[str], known: Sequence[str] | None = None, reported: Sequence[str] = ()
) -> list[Arm]:
    """Read ROW=FOLDER[,FOLDER...], one folder per seed; a folder may be a pattern such as `seed*/dpn`.

    `known` are the rows that may be filled (None: any name will do), `reported` the table's other rows.

    Raises:
        ValueError: an unknown row, a name of one's own that is a row of the table, a folder without results
            or given twice, seeds of one row on different benchmarks or with different reductions, or two
            protocols under one benchmark.
    """
    arms = [_load_arm(word, known, reported) for word in words]
    keys = [arm.key for arm in arms]
    if repeated := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(
            f"row {repeated[0]!r} is given twice; put all its folders into one ROW=FOLDER,FOLDER"
        )
    _require_one_protocol(arms)
    return arms


def _load_arm(word: str, known: Sequence[str] | None, reported: Sequence[str]) -> Arm:
    key, equals, folders = word.partition("=")
    is_own = key.startswith(_OWN)
    key = key.removeprefix(_OWN)
    if not equals or not key or not all(folders.split(",")):
        raise ValueError(f"--runs takes ROW=FOLDER[,FOLDER...], got {word!r}")
    _require_name(key, is_own, known, reported)
    paths = [path for part in folders.split(",") for path in _matching(part)]
    _require_different(key, paths)
    runs = tuple(load_run(f"{key}={path}") for path in paths)
    for path, run in zip(paths, runs, strict=True):
        if run.results.keys() != runs[0].results.keys():
            raise ValueError(
                f"row {key!r}: {path} has {', '.join(run.results)}, {paths[0]} has "
                f"{', '.join(runs[0].results)}; evaluate every seed on the same benchmarks"
            )
        _require_one_reduction(key, (paths[0], path), (runs[0], run))
    return Arm(key, is_own, runs)


def _require_name(key: str, is_own: bool, known: Sequence[str] | None, reported: Sequence[str]) -> None:
    """Refuse a row that can't be filled, and a name of one's own that is taken."""
    if key in reported:
        raise ValueError(
            f"row {key!r} of the table holds numbers that the paper took from others, so no run can stand in "
            f"it; give yours another name, as in {_OWN}my-{key}=..."
        )
    if known is not None and is_own and key in known:
        raise ValueError(f"{key!r} is a row of the table: leave out the {_OWN!r}")
    if known is not None and not is_own and key not in known:
        raise ValueError(
            f"the table has no row {key!r} to fill; there are {', '.join(known)}. For a row of your own "
            f"write {_OWN}{key}=..."
        )


def _require_different(key: str, paths: Sequence[str]) -> None:
    """Refuse a folder that is named more than once, however it is written."""
    first: dict[Path, str] = {}
    for path in paths:
        folder = Path(path).resolve()
        if folder in first:
            also = "" if first[folder] == path else f", before as {first[folder]}"
            raise ValueError(f"row {key!r}: {path} is given twice{also}; a folder is one seed, name it once")
        first[folder] = path


def _require_one_reduction(key: str, paths: tuple[str, str], runs: tuple[Run, Run]) -> None:
    """Refuse two seeds that aren't the same method with the same settings, but for the seed of its draws."""
    for benchmark, result in runs[0].results.items():
        reductions = [result.scores.get("reduction"), runs[1].results[benchmark].scores.get("reduction")]
        first, other = ({**(found or {"method": _DENSE}), "seed": None} for found in reductions)
        if first != other:
            names = [name for name in (first | other) if first.get(name) != other.get(name)]
            names = ["method"] if "method" in names else names
            listed = ", ".join(f"{name} {first.get(name, '-')} / {other.get(name, '-')}" for name in names)
            raise ValueError(
                f"row {key!r}, {benchmark}: {paths[0]} and {paths[1]} differ in {listed}; the folders of a "
                "row are seeds of one method, put others into a row of their own"
            )


def _matching(pattern: str) -> list[str]:
    """Return the folders that a pattern names, seed10 after seed9; a plain name is itself."""
    if not glob.has_magic(pattern):
        return [pattern]
    found = sorted(filter(lambda path: Path(path).is_dir(), glob.glob(pattern)), key=natural_order)  # noqa: PTH207
    if not found:
        raise ValueError(f"{pattern}: no such folder")
    return found


def _require_one_protocol(arms: Sequence[Arm]) -> None:
    """Refuse two protocols in one column."""
    first: dict[str, tuple[str, str]] = {}
    for arm in arms:
        for benchmark in arm.benchmarks:
            for result in arm.results(benchmark):
                label = result.scores["protocol"]
                before, name = first.setdefault(benchmark, (label, arm.key))
                if label != before:
                    raise ValueError(
                        f"{benchmark}: row {name!r} was scored as {before}, row {arm.key!r} as {label}; "
                        "scores of different protocols don't belong in one column"
                    )


def _dig(scores: Mapping[str, Any], path: Sequence[str]) -> float | None:
    found: Any = scores
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
