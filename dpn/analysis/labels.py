"""Write names beside points of a plot where they cover nothing."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from dpn.analysis.style import NORMAL, QUIET

_LINE_STEPS = 80
_POINT = 7
"""Half the size of a point, in pixels."""
_DISTANCES = (9, 20, 32, 46, 60, 80, 105, 130)
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


class Label(NamedTuple):
    """A name and the point it belongs to, in data units."""

    text: str
    x: float
    y: float
    colour: str


class Stroke(NamedTuple):
    """Something drawn from (x, low) to (x, high), in data units, that no name may cover."""

    x: float
    low: float
    high: float
    margin: float = 1.0
    """Pixels around it."""


def point(x: float, y: float) -> Stroke:
    """Keep a marker free."""
    return Stroke(x, y, y, _POINT)


def line(ends: Iterable[tuple[float, float]]) -> Iterator[Stroke]:
    """Keep a line through several points (x, y) free."""
    for (x, y), (end_x, end_y) in pairwise(ends):
        for step in range(_LINE_STEPS):
            share = step / _LINE_STEPS
            height = y + share * (end_y - y)
            yield Stroke(x + share * (end_x - x), height, height)


def write_labels(
    figure: Figure, axes: Axes, labels: Sequence[Label], strokes: Iterable[Stroke], size: int = NORMAL
) -> None:
    """Write each name beside its point, at the nearest free place; a thin line leads to one further away.

    Limits of the axes must be final, and what is drawn must be among the strokes, the points too.
    """
    figure.draw_without_rendering()
    taken = [_box(axes, stroke) for stroke in strokes]
    for label in labels:
        text = axes.annotate(
            label.text,
            (label.x, label.y),
            (0, 0),
            textcoords="offset points",
            fontsize=size,
            color=label.colour,
            parse_math=False,
        )
        taken.append(_place(axes, text, taken))
        if max(map(abs, text.get_position())) > _DISTANCES[0]:
            thin = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 5}
            axes.annotate("", text.xy, text.get_position(), textcoords="offset points", arrowprops=thin)


def _box(axes: Axes, stroke: Stroke) -> Bbox:
    left, bottom = axes.transData.transform((stroke.x, stroke.low))
    right, top = axes.transData.transform((stroke.x, stroke.high))
    margin = stroke.margin
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
