"""A comparison as two tables of text: the paper's with our cells, and the tests against our baseline."""

from collections.abc import Mapping
from typing import Any

from dpn.analysis.comparison import Comparison
from dpn.analysis.paper import ABSENT, Column, Row
from dpn.analysis.reading import is_count, is_list
from dpn.analysis.render import Table
from dpn.analysis.resampling import Interval
from dpn.analysis.run_notes import run_notes

NOT_RUN, REPORTED, OTHER = "not run", "reported", "†"
_DECIMALS = {"mme": 1}
"""Of scores in points; percents have two."""


def main_sheet(comparison: Comparison) -> Table:
    """Lay out the paper's table with a column of the paper's and one of ours in every cell's place."""
    table, is_small = comparison.table, comparison.is_small_world
    has_size = bool(table.size_title) and (not is_small or table.size_title == "Layers")
    first = ("row", *([table.size_title] if has_size else []), "seeds")
    rows = []
    for row in comparison.rows:
        arm = comparison.by_key.get(row.key)
        size = [_size(comparison, row)] if has_size else []
        cells = [text for column in comparison.columns for text in _cells(comparison, row, column)]
        name = f"{row.name} ({REPORTED})" if row.is_reported else row.name
        rows.append((name, *size, str(len(arm.runs)) if arm else ABSENT, *cells))
    labels = [label for column in comparison.columns for label in _labels(comparison, column)]
    protocols = ("protocol", *[""] * (len(first) - 1), *labels)
    number = table.name.removeprefix("table")
    title = (
        f"Small world, not the paper's benchmarks: counterpart of Table {number} ({table.caption})"
        if is_small
        else f"Table {number} of the paper and our runs: {table.caption}"
    )
    return Table(
        title=title,
        groups=(("", first), *(_heading(comparison, column) for column in comparison.columns)),
        rows=(protocols, *rows),
        notes=tuple(_notes(comparison)),
    )


def test_sheet(comparison: Comparison) -> Table:
    """List every row's differences from our own baseline, one benchmark a line."""
    rows = []
    for row, other, benchmark, found in comparison.differences:
        ours, baseline = comparison.by_key[row.key], comparison.by_key[other.key]
        is_average = benchmark == "average"
        over = comparison.averaged
        values = [arm.average(over) if is_average else arm.value(benchmark) for arm in (ours, baseline)]
        test = f"{found.test.name}, p = {_p(found.test.p)}" if found.test else found.reason
        rows.append(
            (
                row.name,
                other.name,
                benchmark,
                f"mean of {len(over)}" if is_average else comparison.protocol(benchmark),
                f"{len(ours.runs)} / {len(baseline.runs)}",
                *(_number(value, benchmark) for value in values),
                _signed(found.value, benchmark),
                _bounds(found.interval, benchmark, signed=True) or ABSENT,
                test,
            )
        )
    headings = "row|our baseline|benchmark|protocol|seeds|ours|baseline|difference|95 % interval|test"
    return Table(
        title="Against our own baseline, on the same questions",
        groups=(("", tuple(headings.split("|"))),),
        rows=tuple(rows),
        notes=_test_notes(comparison) if rows else (),
    )


def _heading(comparison: Comparison, column: Column) -> tuple[str, tuple[str, ...]]:
    if comparison.is_small_world:
        return "", (column.title,)
    return column.title, (("ours",) if column.is_ours else ("paper", "ours"))


def _cells(comparison: Comparison, row: Row, column: Column) -> tuple[str, ...]:
    ours = _ours(comparison, row, column)
    if comparison.is_small_world or column.is_ours:
        return (ours,)
    printed = OTHER if column.key in row.other_protocols else row.printed(column.key)
    return printed, ours


def _ours(comparison: Comparison, row: Row, column: Column) -> str:
    """Return our cell: a value with its interval, or why there is none."""
    arm = comparison.by_key.get(row.key)
    if arm is None:
        return ABSENT if row.is_reported else NOT_RUN
    if column.kind == "score":
        score = comparison.score(arm, column.benchmark)
        return ABSENT if score is None else _value(score.value, score.interval, column.benchmark)
    if column.kind == "average":
        average = comparison.average(arm)
        return ABSENT if average is None else _value(*average)
    cost = comparison.cost(arm, column)
    return ABSENT if cost is None else f"{cost:.4g}" if column.kind in ("gflops", "speed") else f"{cost:.1f}"


def _labels(comparison: Comparison, column: Column) -> tuple[str, ...]:
    """Return the protocols of a column, the paper's and ours."""
    ours = comparison.protocol(column.benchmark) if column.kind == "score" else ""
    if comparison.is_small_world or column.is_ours:
        return (ours,)
    return column.protocol, ours if ours in ("", ABSENT, column.protocol) else f"≠ {ours}"


def _size(comparison: Comparison, row: Row) -> str:
    """Return what stands under Params or Layers: the paper's word, and our layers where they are others."""
    printed = "" if comparison.is_small_world else row.size
    arm = comparison.by_key.get(row.key)
    if arm is None or comparison.table.size_title != "Layers":
        return printed or ABSENT
    ours = _places(arm.runs[0].reduction or {})
    return ours if printed in ("", ours) else f"paper: {printed}; ours: {ours}"


def _places(reduction: Mapping[str, Any]) -> str:
    """Return the decoder layers at which a reduction acts; ABSENT where it acts at none of them."""
    found = reduction.get("layers", reduction.get("layer"))
    places = found if isinstance(found, list) else [found]
    return ",".join(map(str, places)) if is_list(places, is_count, least=1) else ABSENT


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    if not comparison.is_small_world:
        notes.append(
            "paper: as printed there. reported: numbers that the paper took from others, of models that "
            "aren't part of this repository. not run: no result folder was given. protocol: the label that "
            "the paper's numbers agree with, and ours"
        )
        notes += _protocol_notes(comparison)
    if comparison.arms:
        notes += run_notes(comparison)
    return notes


def _protocol_notes(comparison: Comparison) -> list[str]:
    notes = []
    for row in comparison.rows:
        for column in comparison.columns:
            if column.key in row.other_protocols:
                notes.append(
                    f"{OTHER} {row.name}, {column.title}: the paper prints "
                    f"{row.printed(column.key)} here, which is "
                    f"{row.other_protocols[column.key]}, not {column.protocol}"
                )
    if any(label.startswith("≠") for column in comparison.columns for label in _labels(comparison, column)):
        notes.append("≠: our protocol isn't the paper's; the two columns can't be compared")
    return notes


def _test_notes(comparison: Comparison) -> tuple[str, ...]:
    return (
        "McNemar: exact, two-sided, where each side has one seed and every question is right or wrong; else "
        f"paired bootstrap: {comparison.draws.samples} draws of questions and seeds, the same for both sides",
        f"p values of {len(comparison.differences)} tests, none of them corrected for being several",
    )


def _value(value: float, interval: Interval | None, benchmark: str = "") -> str:
    bounds = _bounds(interval, benchmark)
    return f"{_number(value, benchmark)} {bounds}" if bounds else _number(value, benchmark)


def _bounds(interval: Interval | None, benchmark: str, *, signed: bool = False) -> str:
    if interval is None:
        return ""
    write = _signed if signed else _number
    return f"[{write(interval.low, benchmark)}, {write(interval.high, benchmark)}]"


def _number(value: float, benchmark: str) -> str:
    return f"{value:.{_DECIMALS.get(benchmark, 2)}f}"


def _signed(value: float, benchmark: str) -> str:
    return f"{value:+.{_DECIMALS.get(benchmark, 2)}f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1g}"
