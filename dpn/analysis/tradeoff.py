"""Accuracy against FLOPs: every run a labelled point, the runs without a router joined to a line to beat."""

from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from dpn.analysis.results import Run
from dpn.analysis.style import LARGE, NORMAL, QUIET, ROUTER_COLOURS, SMALL, TEXT, new_figure, save, tidy

_LINE = "without a router"
_LINE_STEPS = 80
_MARKERS = {"dense": "s", "control": "o", "router": "D"}
_POINT = 7
"""Half the size of a point, in pixels."""
_DISTANCES = (9, 20, 32, 46, 60)
_DIRECTIONS = (
    ((1, 0), ("left", "center")),
    ((0, 1), ("center", "bottom")),
    ((0, -1), ("center", "top")),
    ((-1, 0), ("right", "center")),
    ((0.8, 0.8), ("left", "bottom")),
    ((0.8, -0.8), ("left", "top")),
    ((-0.8, 0.8), ("right", "bottom")),
    ((-0.8, -0.8), ("right", "top")),
)


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
    frontier = sorted((point.x, point.y) for point in points if point.kind != "router")
    figure = new_figure(8, 5.2)
    axes = figure.subplots()
    tidy(axes)
    if len(frontier) > 1:
        axes.plot(*zip(*frontier, strict=True), "--", color=QUIET, linewidth=1.3, zorder=1, label=_LINE)
        axes.legend(frameon=False, fontsize=NORMAL, labelcolor=TEXT, loc="lower right")
    for point in points:
        bar = {"color": point.colour, "alpha": 0.3, "linewidth": 1.5, "zorder": 2}
        axes.errorbar(point.x, point.y, yerr=point.error, **bar)
        axes.scatter(
            point.x,
            point.y,
            s=70,
            color=point.colour,
            marker=_MARKERS[point.kind],
            zorder=3 + (point.kind == "router"),
        )
    axes.set_xlabel("FLOPs of the visual tokens, % of dense (Eq. 8)", fontsize=NORMAL, color=TEXT)
    axes.set_ylabel("mean accuracy, %", fontsize=NORMAL, color=TEXT)
    axes.set_title("Accuracy against cost", fontsize=LARGE, color=TEXT, loc="left")
    axes.margins(0.16, 0.12)
    figure.supxlabel(
        "bars: one standard error over the questions", fontsize=SMALL, color=QUIET, ha="right", x=0.99
    )
    _label(figure, axes, points, frontier)
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


def _label(
    figure: Figure, axes: Axes, points: Sequence[_Point], frontier: Sequence[tuple[float, float]]
) -> None:
    """Write each name beside its point, at the nearest place where it covers nothing drawn."""
    figure.draw_without_rendering()
    taken = [_box(axes, point.x, point.y, point.y, _POINT) for point in points]
    taken += [_box(axes, point.x, point.y - point.error, point.y + point.error, 1) for point in points]
    for (x, y), (end_x, end_y) in pairwise(frontier):
        steps = (step / _LINE_STEPS for step in range(_LINE_STEPS))
        taken += [_box(axes, x + t * (end_x - x), y + t * (end_y - y), y + t * (end_y - y), 1) for t in steps]
    for point in points:
        text = axes.annotate(
            point.name,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            fontsize=NORMAL,
            color=point.colour,
            parse_math=False,
        )
        taken.append(_place(axes, text, taken))


def _box(axes: Axes, x: float, low: float, high: float, margin: float) -> Bbox:
    """Return the pixels around a vertical stroke from (x, low) to (x, high) in data units."""
    left, bottom = axes.transData.transform((x, low))
    right, top = axes.transData.transform((x, high))
    return Bbox.from_extents(left - margin, bottom - margin, right + margin, top + margin)


def _place(axes: Axes, text: Annotation, taken: Sequence[Bbox]) -> Bbox:
    """Move a label to the first free place around its point and return the box it fills."""
    box = text.get_window_extent()
    for distance, ((right, up), (across, along)) in product(_DISTANCES, _DIRECTIONS):
        text.set(position=(right * distance, up * distance), ha=across, va=along)
        box = text.get_window_extent().padded(2)
        is_inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
        is_inside = is_inside and axes.bbox.containsy(box.y0) and axes.bbox.containsy(box.y1)
        if is_inside and not any(box.overlaps(other) for other in taken):
            break
    return box
