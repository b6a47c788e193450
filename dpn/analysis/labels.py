"""Write names beside points of a plot where they cover nothing."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from dpn.analysis.style import NORMAL, QUIET

_LINE_STEPS = 80
_MARKER = 7
"""Half the size of a marker, in pixels of a figure with 100 to an inch."""
_GAP = 2
"""Pixels around a name."""
_STEP = 4
"""Pixels from one part of a line to a name to the next."""
_ON_LINE, _LED_ACROSS, _COVERS, _OUTSIDE = 25.0, 100.0, 1e3, 1e6
"""What it costs, in points of distance, that a name lies on a line, that the line to it lies on a marker or
name, that it does so itself, that it is outside the axes."""
_POINTS_PER_INCH = 72.0
_DISTANCES = (9, 14, 20, 26, 32, 39, 46, 53, 60, 70, 80, 92, 105)
_DIRECTIONS = (
    (1.0, 0.0),
    (0.0, 1.0),
    (0.0, -1.0),
    (-1.0, 0.0),
    (0.8, 0.8),
    (0.8, -0.8),
    (-0.8, 0.8),
    (-0.8, -0.8),
    (1.0, 0.4),
    (1.0, -0.4),
    (-1.0, 0.4),
    (-1.0, -0.4),
    (0.4, 1.0),
    (-0.4, 1.0),
    (0.4, -1.0),
    (-0.4, -1.0),
)
"""To the right and up, the better ones first."""
_ACROSS = {1: "left", 0: "center", -1: "right"}
_ALONG = {1: "bottom", 0: "center", -1: "top"}
"""Which edge of a name looks at its point, by the rounded direction."""


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
    is_solid: bool = False
    """Whether a name lies there only where all other places are worse; else it is part of a line."""


def point(x: float, y: float) -> Stroke:
    """Keep a marker free."""
    return Stroke(x, y, y, _MARKER, is_solid=True)


def line(ends: Iterable[tuple[float, float]]) -> Iterator[Stroke]:
    """Keep a line through several points (x, y) free."""
    for (x, y), (end_x, end_y) in pairwise(ends):
        for step in range(_LINE_STEPS + 1):
            share = step / _LINE_STEPS
            height = y + share * (end_y - y)
            yield Stroke(x + share * (end_x - x), height, height)


def write_labels(
    figure: Figure, axes: Axes, labels: Sequence[Label], strokes: Iterable[Stroke], size: int = NORMAL
) -> None:
    """Write each name beside its point, at the best place near it; a dotted line leads to one further away.

    A name covers no marker, other name or legend while there is a place without, and no line if that takes
    it little further away. Limits of the axes must be final, and what is drawn must be among the strokes,
    the points too.
    """
    figure.draw_without_rendering()
    ground = _Ground(axes, strokes)
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
        distance, (right, up) = ground.place(text)
        across, along = _ACROSS[round(right)], _ALONG[round(up)]
        text.set(position=(right * distance, up * distance), ha=across, va=along)
        if distance > _DISTANCES[0]:
            thin = {"arrowstyle": "-", "color": QUIET, "linewidth": 0.7, "linestyle": ":", "shrinkA": 0}
            axes.annotate("", text.xy, text.get_position(), textcoords="offset points", arrowprops=thin)


class _Ground:
    """What is drawn so far: boxes (N, 4) of left, bottom, right, top in pixels."""

    def __init__(self, axes: Axes, strokes: Iterable[Stroke]) -> None:
        self.axes = axes
        self.page = np.array(axes.bbox.extents)
        listed = list(strokes)
        solid = [_box(axes, stroke) for stroke in listed if stroke.is_solid]
        if (legend := axes.get_legend()) is not None:
            solid.append(np.array(legend.get_window_extent().extents))
        self.solid = np.reshape(solid, (-1, 4))
        """Markers, the legend, names and the lines to them."""
        self.lines = np.reshape([_box(axes, each) for each in listed if not each.is_solid], (-1, 4))

    def place(self, text: Annotation) -> tuple[float, tuple[float, float]]:
        """Find the best distance and direction for a name, and keep its place free from now on."""
        extent = text.get_window_extent()
        start = self.axes.transData.transform(text.xy)
        size = np.array([extent.width, extent.height])
        best, found, kept = math.inf, (0.0, (0.0, 0.0)), self.solid[:0]
        for distance, direction in product(_DISTANCES, _DIRECTIONS):
            reach = np.array(direction) * distance * self.axes.figure.dpi / _POINTS_PER_INCH
            # The corner or edge of the name that looks at the point stands at the end of the reach.
            middle = start + reach + np.round(direction) * size / 2
            box = np.concatenate([middle - size / 2 - _GAP, middle + size / 2 + _GAP])
            leader = _leader(start, reach) if distance > _DISTANCES[0] else self.solid[:0]
            cost = (
                distance
                + _ON_LINE * _overlaps(box[None], self.lines).any()
                + _LED_ACROSS * _overlaps(leader, self.solid).any()
                + _COVERS * _overlaps(box[None], self.solid).sum()
                + _OUTSIDE * (not _is_inside(box, self.page))
            )
            if cost < best:
                best, found, kept = cost, (float(distance), direction), np.vstack([box, leader])
        self.solid = np.vstack([self.solid, kept])
        return found


def _box(axes: Axes, stroke: Stroke) -> np.ndarray:
    ends = axes.transData.transform([(stroke.x, stroke.low), (stroke.x, stroke.high)])
    return np.concatenate([ends[0] - stroke.margin, ends[1] + stroke.margin])


def _leader(start: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return boxes (K, 4) along the line from a point to its name, from the marker's edge on."""
    length = np.abs(reach).max()
    shares = np.arange(2 * _MARKER, length, _STEP)[:, None] / length
    places = start + shares * reach
    return np.hstack([places - 1, places + 1])


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Say which of (K, 4) boxes share ground with which of (N, 4) others: (K, N)."""
    one, two = boxes[:, None], others[None]
    return np.all((one[..., :2] < two[..., 2:]) & (two[..., :2] < one[..., 2:]), axis=-1)


def _is_inside(box: np.ndarray, page: np.ndarray) -> bool:
    return bool((box[:2] >= page[:2]).all() and (box[2:] <= page[2:]).all())
