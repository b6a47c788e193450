"""The figure of a run: time against FLOPs, or the time of a token."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TEXT, QUIET = "#222222", "#8a8a8a"
COLOURS = {
    "transformers": "#6a4c93",
    "dense": TEXT,
    "identity": "#3a7d44",
    "uniform": "#1f6f8b",
    "mixed": "#c1440e",
}


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Write the figure of a run: one panel per case."""
    cases = summary["cases"]
    figure = new_figure(4.6 * len(cases), 4.4)
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for axes, case in zip(panels, cases, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        answer = "" if case["answer"] is None else f", {case['answer']} answer tokens"
        sharding = f", ZeRO-{summary['zero']} x {summary['ranks']}" if summary["zero"] else ""
        axes.set_title(f"{summary['mode']}{sharding}, batch {case['batch']}{answer}", loc="left", color=TEXT)
        if "first_token_seconds" in case["variants"][0]:
            _bars(axes, case)
        else:
            _against_flops(axes, case)
    figure.supxlabel(
        f"{summary['device']}, {summary['dtype']}, {summary['clock']} clock", fontsize=8, color=QUIET
    )
    save(figure, path)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure in inches that lays itself out and needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG."""
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _against_flops(axes: Axes, case: Mapping[str, Any]) -> None:
    """Draw time over FLOPs, both relative to dense; on the line nothing but FLOPs costs time."""
    axes.plot([0, 1], [0, 1], "--", color=QUIET, linewidth=1, zorder=1, label="time = FLOPs")
    for row in sorted(case["variants"], key=lambda row: row["flops_share"]["full"]):
        x, y = row["flops_share"]["full"], row["over_dense"]
        error = [[y["median"] - y["low"]], [y["high"] - y["median"]]]
        axes.errorbar(
            x,
            y["median"],
            yerr=error,
            fmt="o",
            color=COLOURS[row["kind"]],
            label=f"{row['name']}: {y['median']:.3f} at {x:.3f}",
        )
    has_memory = any("memory" in row for row in case["variants"])
    if has_memory:
        _draw_memory(axes, case)
    label = "time, memory / dense" if has_memory else "time / dense"
    axes.set(xlim=(0, 1.1), ylim=(0, None), xlabel="FLOPs / dense (full)", ylabel=label)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _draw_memory(axes: Axes, case: Mapping[str, Any]) -> None:
    """Add hollow squares: the memory of a step, relative to dense."""
    axes.plot([], [], "s", color=QUIET, markerfacecolor="none", label="peak memory of a step")
    for row in case["variants"]:
        x, y = row["flops_share"]["full"], row["memory"]["step_bytes_over_dense"]
        axes.plot(x, y, "s", color=COLOURS[row["kind"]], markerfacecolor="none")


def _bars(axes: Axes, case: Mapping[str, Any]) -> None:
    """Draw where the time of an answer goes: first token, and the others."""
    rows = case["variants"]
    names = [row["name"] for row in rows]
    first = [1000 * row["first_token_seconds"] for row in rows]
    rest = [1000 * (row["seconds"] - row["first_token_seconds"]) for row in rows]
    axes.barh(names, first, color="#1f6f8b", label="first token")
    axes.barh(names, rest, left=first, color="#c9d6dc", label="other tokens")
    axes.invert_yaxis()
    axes.set_xlabel("ms per answer of the batch")
    axes.legend(frameon=False, fontsize=8)
