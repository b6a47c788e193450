"""Accuracy against FLOPs: every run a labelled point, the runs without a router joined to a line to beat."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dpn.analysis.labels import Label, Stroke, line, point, write_labels
from dpn.analysis.results import Run
from dpn.analysis.style import LARGE, NORMAL, QUIET, ROUTER_COLOURS, SMALL, TEXT, new_figure, save, tidy

_LINE = "without a router"
_MARKERS = {"dense": "s", "control": "o", "router": "D"}


class _Point(NamedTuple):
    """One run in the figure."""

    name: str
    x: float
    y: float
    error: float
    colour: str
    kind: str


def draw_tradeoff(runs: Sequence[Run], path: Path) -> None:
    """Write the figure."""
    points = _points(runs)
    frontier = sorted((each.x, each.y) for each in points if each.kind != "router")
    figure = new_figure(8, 5.2)
    axes = figure.subplots()
    tidy(axes)
    if len(frontier) > 1:
        axes.plot(*zip(*frontier, strict=True), "--", color=QUIET, linewidth=1.3, zorder=1, label=_LINE)
        axes.legend(frameon=False, fontsize=NORMAL, labelcolor=TEXT, loc="lower right")
    for each in points:
        bar = {"color": each.colour, "alpha": 0.3, "linewidth": 1.5, "zorder": 2}
        axes.errorbar(each.x, each.y, yerr=each.error, **bar)
        axes.scatter(
            each.x,
            each.y,
            s=70,
            color=each.colour,
            marker=_MARKERS[each.kind],
            zorder=3 + (each.kind == "router"),
        )
    axes.set_xlabel("FLOPs of the visual tokens, % of dense (Eq. 8)", fontsize=NORMAL, color=TEXT)
    axes.set_ylabel("mean accuracy, %", fontsize=NORMAL, color=TEXT)
    axes.set_title("Accuracy against cost", fontsize=LARGE, color=TEXT, loc="left")
    axes.margins(0.16, 0.12)
    figure.supxlabel(
        "bars: one standard error over the questions", fontsize=SMALL, color=QUIET, ha="right", x=0.99
    )
    labels = [Label(each.name, each.x, each.y, each.colour) for each in points]
    write_labels(figure, axes, labels, _strokes(points, frontier))
    save(figure, path)


def _points(runs: Sequence[Run]) -> list[_Point]:
    colours = iter(ROUTER_COLOURS * len(runs))
    fixed = {"dense": TEXT, "control": QUIET}
    return [
        _Point(
            name=run.name,
            x=100 * run.mean_of(lambda scores: scores["flops_ratio"]["paper"]),
            y=run.accuracy,
            error=run.standard_error,
            colour=fixed[run.kind] if run.kind in fixed else next(colours),
            kind=run.kind,
        )
        for run in runs
    ]


def _strokes(points: Sequence[_Point], frontier: Sequence[tuple[float, float]]) -> list[Stroke]:
    """List what no name may cover."""
    markers = [point(each.x, each.y) for each in points]
    bars = [Stroke(each.x, each.y - each.error, each.y + each.error) for each in points]
    return [*markers, *bars, *line(frontier)]
