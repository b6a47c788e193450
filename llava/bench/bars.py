"""The goals that a run is held against (docs/benchmarking.md says for which sizes and machine)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Bar(NamedTuple):
    """One goal: a number that shall not exceed a limit."""

    figure: str
    mode: str
    kind: str
    """Kind of the variants it is read from."""
    path: tuple[str, ...]
    """Where the number stands in a variant's row."""
    limit: float
    batches: tuple[int, ...] = ()
    """Batches it is meant for; none means all."""


BARS = (
    Bar(
        "uniform routes: time ratio / FLOPs ratio (full)", "prefill", "uniform", ("over_flops",), 1.05, (1, 4)
    ),
    Bar("mixed routes: time ratio / FLOPs ratio (full)", "prefill", "mixed", ("over_flops",), 1.08, (8,)),
    Bar("dense / transformers' LLaVA", "prefill", "dense", ("over_transformers", "median"), 1.02),
    Bar("identity routes / dense", "prefill", "identity", ("over_dense", "median"), 1.03),
    Bar("mixed routes: time ratio / FLOPs ratio (full)", "train", "mixed", ("over_flops",), 1.12, (8,)),
    *(
        Bar("key/value bytes / analytical", "prefill", kind, ("cache", "over_expected"), 1.0)
        for kind in ("dense", "identity", "uniform", "mixed")
    ),
)


def judge(mode: str, cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read every goal of a mode from its cases; a goal without a fitting case is left out."""
    found = []
    for bar in BARS:
        for case in cases if bar.mode == mode else ():
            if bar.batches and case["batch"] not in bar.batches:
                continue
            for row in case["variants"]:
                value = _at(row, bar.path) if row["kind"] == bar.kind else None
                if value is not None:
                    found.append(
                        {
                            "figure": bar.figure,
                            "batch": case["batch"],
                            "variant": row["name"],
                            "measured": value,
                            "limit": bar.limit,
                            "met": value <= bar.limit + 1e-9,
                        }
                    )
    return found


def _at(row: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value: Any = row
    for name in path:
        if name not in value:
            return None
        value = value[name]
    return float(value)
