"""What has to be said under a table about the runs that fill it."""

from collections.abc import Mapping
from typing import Any

from dpn.analysis.comparison import Comparison

_METHODS = {
    "llava": None,
    "llava-hr": None,
    "llava-hr-x": None,
    "mlp": None,
    "baseline": None,
    "fastv-r0.5": "fastv",
    "fastv-r0.6": "fastv",
    "prumerge_plus": "prumerge_plus",
    "dpn": "dpn",
    "dpn-hr": "dpn",
    "dpn-hr-x": "dpn",
    "no-loss": "dpn",
}
"""Row of the paper -> its method, None for plain LLaVA; the other rows can be made in several ways."""
_SETTINGS = {"dpn": ("preset", "layers"), "fastv": ("layer", "ratio")}
"""What a note says of a run whose row's name doesn't: Ours may be any preset, K=3 is meant for 32 layers."""
_COST_KINDS = frozenset(("gflops", "flops_ratio", "tokens", "speed"))


def run_notes(comparison: Comparison) -> list[str]:
    """Say what our numbers are means over, where they were measured, and what is odd about them."""
    notes = [
        f"ours: mean over seeds, and the middle 95 % of {comparison.draws.samples} bootstrap replicates, "
        "which draw questions, and seeds where there are several, with replacement (two or three seeds "
        "say little about their spread)"
    ]
    kinds = {column.kind for column in comparison.columns}
    if comparison.has_average and comparison.averaged:
        over = [
            f"{comparison.titles[name]}{' / 20' if name == 'mme' else ''}" for name in comparison.averaged
        ]
        notes.append(f"our average: over {', '.join(over)}; where one is missing there is none")
    if kinds & _COST_KINDS and comparison.costed:
        over = [comparison.titles[name] for name in comparison.costed]
        notes.append(
            "FLOPs: of the decoder's prefill, visual tokens and two FFN matrices (Eq. 8); tokens: visual "
            "ones, mean over the decoder's layers; columns that name no benchmark are means over "
            f"{', '.join(over)}"
        )
    if "speed" in kinds and comparison.costed:
        measured = sorted(", ".join(map(str, where)) for where in comparison.measured_on(comparison.arms[0]))
        notes.append(
            f"our speed: on {'; '.join(measured)} (device, dtype, batch); elsewhere measured rows have none"
        )
    return [*notes, *_method_notes(comparison), *_interval_notes(comparison)]


def _method_notes(comparison: Comparison) -> list[str]:
    """Say of which settings a row's run is, and name the rows whose run is of another method."""
    notes = []
    for row in comparison.rows:
        arm = comparison.by_key.get(row.key)
        if arm is None or arm.is_own or row.key not in _METHODS:
            continue
        reduction = arm.runs[0].reduction or {}
        expected, found = _METHODS[row.key], reduction.get("method")
        if found != expected:
            names = [name or "plain LLaVA, without a reduction" for name in (expected, found)]
            notes.append(f"{row.name}: this row is about {names[0]}; our run is one of {names[1]}")
        elif settings := _settings(reduction):
            notes.append(f"{row.name}: our run has {settings}")
    return notes


def _settings(reduction: Mapping[str, Any]) -> str:
    """Write what a row's name doesn't say as `--reduction` takes it; "" where there is nothing to say."""
    shown = {
        name: reduction[name] for name in _SETTINGS.get(reduction.get("method", ""), ()) if name in reduction
    }
    return " ".join(
        f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in shown.items()
    )


def _interval_notes(comparison: Comparison) -> list[str]:
    """Say why cells have no interval."""
    needed = {*comparison.benchmarks, *(comparison.averaged if comparison.has_average else ())}
    return sorted(
        f"no interval for {arm.key}, {comparison.titles[name]}: {score.reason}"
        for arm in comparison.arms
        for name in needed
        if (score := comparison.score(arm, name)) is not None and score.reason
    )
