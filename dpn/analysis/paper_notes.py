"""Where the paper's numbers don't agree with each other, recomputed: writes docs/paper_notes.md.

python -m dpn.analysis.paper_notes > docs/paper_notes.md

The words are in docs/paper_notes.md.in; every number in them is printed in the paper (dpn/analysis/paper.py),
computed here from those, or listed in `ELSEWHERE` with its source.
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpn.analysis.paper import TABLES, PaperTable, Row, average_of, printed_number
from dpn.analysis.paper_costs import cost_numbers

_WIDTH = 122
TEMPLATE = Path(__file__).resolve().parents[2] / "docs" / "paper_notes.md.in"
ELSEWHERE = {
    "moe-llava": {"gqa": 61.4, "scienceqa": 68.5, "textvqa": 51.4, "vqav2": 77.6},
    "fastv-r0.5": {"gqa": 60.4, "mmmu": 35.2, "mme": 1511.7},
    "llava-hr": {"mme": 1554.9, "seed": 64.2},
    "llava-hr-x": {"vqav2": 82.6, "pope": 88.0, "seed": 65.3},
    "llava": {"mmbench": 64.3},
}
"""Row of Table 1 -> what the READMEs of MoE-LLaVA, FastV, LLaVA-HR and LLaVA (model zoo) give."""
_BLOCKS = {
    "table1": (
        ("roe", "fastv-r0.5", "fastv-r0.6", "dpn"),
        ("llava-hr", "roe-hr", "dpn-hr"),
        ("llava-hr-x", "dpn-hr-x"),
    ),
    "table2": (tuple(row.key for row in TABLES["table2"].rows),),
    "table3": (tuple(row.key for row in TABLES["table3"].rows),),
    "table4": (("baseline", "no-loss", "dpn"),),
}
"""Rows that bold marks compare; LLaVA 1.5 seems not to take part in Table 1."""
_PAIRS = (("dpn", "llava"), ("dpn-hr", "llava-hr"), ("dpn-hr-x", "llava-hr-x"))
T1, T2, T3, T4 = (TABLES[f"table{number}"] for number in range(1, 5))
TEN = tuple(column.key for column in T1.columns if column.kind == "score")
"""The ten benchmarks of Table 1."""


def gain(table: PaperTable, ours: str, other: str, columns: tuple[str, ...], **instead: float) -> float:
    """Return the difference of two rows' averages; `instead` replaces numbers of the second."""
    mine, theirs = average_of(table.row(ours), columns), average_of(table.row(other), columns, **instead)
    if mine is None or theirs is None:
        raise ValueError(f"{ours} and {other} don't have all of {', '.join(columns)}")
    return mine - theirs


def step(table: PaperTable, ours: str, other: str, column: str) -> float:
    """Return the difference of two printed numbers."""
    return printed_number(table.name, ours, column) - printed_number(table.name, other, column)


def wrong_averages(table: PaperTable) -> Iterator[tuple[Row, float]]:
    """Yield rows whose printed average isn't the recomputed one, rounded or cut off, and the latter."""
    for row in table.rows:
        stated, recomputed = row.number("average"), table.recomputed_average(row.key)
        if stated is None or recomputed is None:
            continue
        unit = 10.0 ** -len(row.printed("average").partition(".")[2])
        if not -unit / 2 - 1e-9 <= recomputed - stated < unit - 1e-9:
            yield row, recomputed


def misplaced_bold(table: PaperTable) -> Iterator[tuple[str, Row, Row]]:
    """Yield (column, bold row, the best of those rows of its block that are better)."""
    for block in _BLOCKS[table.name]:
        rows = [row for row in table.rows if row.key in block]
        for column in table.columns:
            sign = -1 if column.kind in ("gflops", "flops_ratio", "tokens") else 1
            numbers = {row.key: number for row in rows if (number := row.number(column.key)) is not None}
            best = max(rows, key=lambda row: sign * numbers.get(row.key, -sign * float("inf")))
            for row in rows:
                if row.is_bold(column.key) and numbers[row.key] != numbers[best.key]:
                    yield column.key, row, best


def page() -> str:
    """Return docs/paper_notes.md."""
    numbers = {**_averages(), **_claims(), **_rows(), **cost_numbers()}
    return _refilled(TEMPLATE.read_text(encoding="utf-8").format(**numbers))


def _refilled(text: str) -> str:
    """Break prose and list items anew, and leave headings and tables as they are."""
    items: list[str] = []
    for line in text.split("\n"):
        is_whole = not line or line.startswith(("|", "#", "* "))
        if is_whole or not items or not items[-1] or items[-1].startswith(("|", "#")):
            items.append(line)
        else:
            items[-1] = f"{items[-1]} {line.strip()}"
    return "\n".join(
        item
        if item.startswith(("|", "#"))
        else textwrap.fill(
            item,
            _WIDTH,
            subsequent_indent="  " if item.startswith("* ") else "",
            break_on_hyphens=False,
            break_long_words=False,
        )
        for item in items
    )


def _averages() -> dict[str, Any]:
    """Return what the page says about averages."""
    tables = (T1, T2, T3, T4)
    wrong = [
        f"| {table.name.removeprefix('table')} | {row.name} | {row.printed('average')} | {value:.3f} |"
        for table in tables
        for row, value in wrong_averages(table)
    ]
    rounded = [
        f"{row.printed('average')} of {value:.3f}"
        for row in T3.rows
        if (value := T3.recomputed_average(row.key)) is not None
    ]
    return {
        "wrong_averages": "\n".join(wrong),
        "roe_average": T1.recomputed_average("roe"),
        "dpn_average": T1.recomputed_average("dpn"),
        "mlp_average": average_of(
            T2.row("mlp"), T2.averaged, mmbench=printed_number("table1", "llava", "mmbench")
        ),
        "llava_average": average_of(T1.row("llava"), T1.averaged, mmbench=ELSEWHERE["llava"]["mmbench"]),
        "gap_printed": step(T2, "dpn", "mlp", "average"),
        "gap": gain(T2, "dpn", "mlp", T2.averaged),
        "gap_hr_x_printed": step(T1, "dpn-hr-x", "llava-hr-x", "average"),
        "gap_hr_x": gain(T1, "dpn-hr-x", "llava-hr-x", T1.averaged),
        "rounded_averages": ", ".join(rounded),
    }


def _claims() -> dict[str, Any]:
    """Return what the tables say where the text claims something."""
    zoo = ELSEWHERE["llava"]["mmbench"]
    speeds = [
        printed_number("table1", ours, "speed") / printed_number("table1", other, "speed")
        for ours, other in _PAIRS
    ]
    pope = step(T1, "dpn", "llava", "pope")
    return {
        "gain_ten": gain(T1, "dpn", "llava", TEN),
        "gain_eight": gain(T1, "dpn", "llava", T1.averaged),
        "gain_ten_zoo": gain(T1, "dpn", "llava", TEN, mmbench=zoo),
        "gain_hr": gain(T1, "dpn-hr", "llava-hr", TEN),
        "gain_hr_no_seed": gain(T1, "dpn-hr", "llava-hr", tuple(name for name in TEN if name != "seed")),
        "gain_hr_x": gain(T1, "dpn-hr-x", "llava-hr-x", TEN),
        "left_4": printed_number("table4", "dpn", "average_flops"),
        "left_pope": printed_number("table4", "dpn", "pope_flops"),
        "dpe_gqa": step(T4, "no-loss", "baseline", "gqa"),
        "dpe_textvqa": step(T4, "no-loss", "baseline", "textvqa"),
        "final_textvqa": step(T4, "dpn", "baseline", "textvqa"),
        "loss_pope_flops": step(T4, "dpn", "no-loss", "pope_flops"),
        "loss_mmmu_flops": step(T4, "dpn", "no-loss", "mmmu_flops"),
        "loss_mmmu": step(T4, "dpn", "no-loss", "mmmu"),
        "over_static": {key[-3:]: step(T3, "dpn", key, "average") for key in _static()},
        "pope_gain": pope,
        "pope_gain_share": 100 * pope / printed_number("table1", "llava", "pope"),
        "gqa_gain": step(T1, "dpn", "llava", "gqa"),
        "vqav2_gain": step(T2, "dpn", "mlp", "vqav2"),
        "fewer_tokens": 100
        - 100 * printed_number("table2", "dpn", "tokens") / printed_number("table2", "mlp", "tokens"),
        "speed": speeds,
        "mme_falls": _changes("mme"),
        "mmvet_falls": _changes("mmvet"),
    }


def _static() -> list[str]:
    return [row.key for row in T3.rows if row.key.startswith("static-")]


def _changes(column: str) -> str:
    """List a column's numbers of every baseline and of DPN on it."""
    return ", ".join(
        f"{T1.row(other).printed(column)} to {T1.row(ours).printed(column)}" for ours, other in _PAIRS
    )


def _rows() -> dict[str, Any]:
    """Return what the page says about single rows and their marks."""
    moe, roe_hr = T1.row("moe-llava"), T1.row("roe-hr")
    same = [column.title for column in T1.columns if _agree(moe, roe_hr, column.key)]
    seeds = [
        [row.name for row in T3.rows if row.number("seed") == T3.row(key).number("seed")] for key in _static()
    ]
    pope = max(T3.rows, key=lambda row: row.number("pope") or 0.0)
    titles = {column.key: column.title for table in (T1, T2, T3, T4) for column in table.columns}
    bold = [
        f"| {table.name.removeprefix('table')} | {titles[key]} | {row.name}: {row.printed(key)} | "
        f"{better.name}: {better.printed(key)} |"
        for table in (T1, T2, T3, T4)
        for key, row, better in misplaced_bold(table)
    ]
    ties = [
        titles[column]
        for ours, other in _PAIRS
        for column in TEN
        if T1.row(ours).number(column) == T1.row(other).number(column) and T1.row(ours).is_bold(column)
    ]
    return {
        "t1": {row.key: {column: row.printed(column) for column in row.values} for row in T1.rows},
        "t2": {row.key: {column: row.printed(column) for column in row.values} for row in T2.rows},
        "elsewhere": ELSEWHERE,
        "moe_same": ", ".join(same),
        "moe_average": average_of(moe, T1.averaged, **ELSEWHERE["moe-llava"]),
        "same_seed": " and ".join(max(seeds, key=len)),
        "bold_table": "\n".join(bold),
        "bold_ties": " and ".join(ties),
        "unmarked": f"{pope.printed('pope')} of {pope.name}",
    }


def _agree(row: Row, other: Row, column: str) -> bool:
    number = row.number(column)
    return number is not None and number == other.number(column)


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


if __name__ == "__main__":
    main()
