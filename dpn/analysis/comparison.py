"""A table of the paper beside our own runs: what stands in every cell, under which protocol, tested how."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dpn.analysis.arms import Arm, Difference, Score, compare, compare_averages
from dpn.analysis.paper import ABSENT, Column, PaperTable, Row
from dpn.analysis.resampling import Draws, Interval, interval
from dpn.analysis.results import mean

_COSTS = {
    "gflops": (("gflops", "paper"), 1.0),
    "flops_ratio": (("flops_ratio", "paper"), 100.0),
    "tokens": (("visual_tokens",), 1.0),
}
"""Kind of column -> where scores.json holds the number, and what it is multiplied by."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One table of the paper, the runs that fill it, and how they are drawn again."""

    table: PaperTable
    arms: tuple[Arm, ...]
    draws: Draws
    is_small_world: bool = False
    """The runs are about the small world, which the paper's numbers have nothing to do with."""
    wanted_rows: tuple[str, ...] = ()
    wanted_columns: tuple[str, ...] = ()
    baseline: str = ""
    """Row that every row is tested against; "": what the table says of each."""

    def __post_init__(self) -> None:
        """Refuse names that the table doesn't have."""
        known = {
            "--rows": (self.wanted_rows, [row.key for row in self.table.rows]),
            "--columns": (self.wanted_columns, [column.key for column in self.table.columns]),
            "--baseline": ((self.baseline,) if self.baseline else (), list(self.by_key)),
        }
        for flag, (wanted, there) in known.items():
            if unknown := [name for name in wanted if name not in there]:
                raise ValueError(
                    f"{flag} {unknown[0]}: {self.table.name} has no such name; there are {', '.join(there)}"
                )

    @property
    def by_key(self) -> dict[str, Arm]:
        return {arm.key: arm for arm in self.arms}

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows shown: the paper's that were asked for (small world: those that ran), then our own."""
        names = {arm.key for arm in self.arms}
        wanted = set(self.wanted_rows) or {
            row.key for row in self.table.rows if not self.is_small_world or row.key in names
        }
        default = self.table.row("dpn").baseline
        own = [
            Row(key=arm.key, name=arm.key, size="", baseline=default, values={})
            for arm in self.arms
            if arm.is_own
        ]
        return (*(row for row in self.table.rows if row.key in wanted), *own)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns shown: of the small world only those on whose benchmark something ran."""
        present = self._present
        return tuple(
            column
            for column in self.table.columns
            if (not self.wanted_columns or column.key in self.wanted_columns)
            and (not self.is_small_world or not column.benchmark or column.benchmark in present)
        )

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Benchmarks of the columns shown."""
        return tuple(column.benchmark for column in self.columns if column.kind == "score")

    @property
    def averaged(self) -> tuple[str, ...]:
        """Benchmarks that the average is over: the paper's, of the small world those that ran."""
        if not self.is_small_world:
            return self.table.averaged
        present = self._present
        return tuple(name for name in self.table.averaged if name in present)

    @property
    def costed(self) -> tuple[str, ...]:
        """Benchmarks that mean costs are over, shown or not: the table's that every row ran."""
        return tuple(name for name in self.titles if all(name in arm.benchmarks for arm in self.arms))

    @property
    def titles(self) -> dict[str, str]:
        """Title of every benchmark of the table, shown or not."""
        return {column.benchmark: column.title for column in self.table.columns if column.kind == "score"}

    @property
    def has_average(self) -> bool:
        """Whether a column of averages is shown."""
        return any(column.kind == "average" for column in self.columns)

    @property
    def _present(self) -> set[str]:
        """Benchmarks that some row ran."""
        return {name for arm in self.arms for name in arm.benchmarks}

    def score(self, arm: Arm, benchmark: str) -> Score | None:
        """Return a row's score on a benchmark, None where it didn't run."""
        return arm.score(benchmark, self.draws) if benchmark in arm.benchmarks else None

    def average(self, arm: Arm) -> tuple[float, Interval | None] | None:
        """Return a row's average and its interval, None where a benchmark is missing."""
        if not self.averaged or not set(self.averaged) <= set(arm.benchmarks):
            return None
        replicates = arm.averages(self.averaged, self.draws)
        return arm.average(self.averaged), None if replicates is None else interval(replicates)

    def cost(self, arm: Arm, column: Column) -> float | None:
        """Return what a cost column says of a row: of its benchmark, else the mean over all that were run."""
        over = (column.benchmark,) if column.benchmark else self.costed
        if not over or not set(over) <= set(arm.benchmarks):
            return None
        if column.kind == "speed":
            return self._speed(arm)
        path, factor = _COSTS[column.kind]
        found = [arm.mean_cost(benchmark, path) for benchmark in over]
        return None if None in found else factor * mean(value for value in found if value is not None)

    def _speed(self, arm: Arm) -> float | None:
        """Questions per second, where measured as the first row was: device, dtype, batch."""
        seconds = [arm.mean_cost(benchmark, ("seconds_per_sample",)) for benchmark in self.costed]
        if None in seconds or self.measured_on(arm) != self.measured_on(self.arms[0]):
            return None
        return 1 / mean(value for value in seconds if value is not None)

    def measured_on(self, arm: Arm) -> set[tuple[Any, ...]]:
        """Return the (device, dtype, batch size) of a row's times."""
        keys = ("device", "dtype", "batch_size")
        return {
            tuple(result.scores.get(key) for key in keys)
            for benchmark in self.costed
            for result in arm.results(benchmark)
        }

    def protocol(self, benchmark: str) -> str:
        """Return the label of our own runs, "-" where there are none; load_arms lets only one in."""
        ran = [arm for arm in self.arms if benchmark in arm.benchmarks]
        return ran[0].results(benchmark)[0].scores["protocol"] if ran else ABSENT

    @cached_property
    def differences(self) -> list[tuple[Row, Row, str, Difference]]:
        """Test every row that ran: (row, its baseline, benchmark or `average`, what came out)."""
        names = {row.key: row for row in self.rows}
        found = []
        for row in self.rows:
            other = self.baseline or row.baseline
            if row.key == other or row.key not in self.by_key or other not in self.by_key:
                continue
            ours, theirs = self.by_key[row.key], self.by_key[other]
            named = names.get(other) or self.table.row(other)
            shared = {*ours.benchmarks} & {*theirs.benchmarks}
            tested = [name for name in self.benchmarks if name in shared]
            found += [(row, named, name, compare(ours, theirs, name, self.draws)) for name in tested]
            if self.has_average and len(self.averaged) > 1 and shared.issuperset(self.averaged):
                averages = compare_averages(ours, theirs, self.averaged, self.draws)
                found.append((row, named, "average", averages))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything that the tables show, at full precision."""
        return {
            "table": self.table.name,
            "small_world": self.is_small_world,
            "replicates": self.draws.samples,
            "averaged": list(self.averaged),
            "mean_costs_over": list(self.costed),
            "protocols": {name: self.protocol(name) for name in self.benchmarks},
            "rows": [self._row(row) for row in self.rows],
            "tests": [
                {
                    "row": row.key,
                    "baseline": other.key,
                    "benchmark": benchmark,
                    "difference": found.value,
                    "interval": found.interval,
                    "test": found.test and found.test._asdict(),
                    "reason": found.reason,
                }
                for row, other, benchmark, found in self.differences
            ],
        }

    def _row(self, row: Row) -> dict[str, Any]:
        arm = self.by_key.get(row.key)
        return {
            "row": row.key,
            "name": row.name,
            "is_reported": row.is_reported,
            "paper": {} if self.is_small_world else dict(row.values),
            "seeds": 0 if arm is None else len(arm.runs),
            "ours": {} if arm is None else {column.key: self._cell(arm, column) for column in self.columns},
        }

    def _cell(self, arm: Arm, column: Column) -> Mapping[str, Any] | float | None:
        if column.kind == "score":
            found = self.score(arm, column.benchmark)
            return None if found is None else found._asdict()
        if column.kind == "average":
            average = self.average(arm)
            return None if average is None else {"value": average[0], "interval": average[1]}
        return self.cost(arm, column)
