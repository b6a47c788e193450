"""The picture of a study: accuracy against FLOPs, every method a marker or a curve."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from dpn.analysis.estimate import Estimate
from dpn.analysis.labels import Label, Stroke, line, point, write_labels
from dpn.analysis.style import LARGE, NORMAL, QUIET, SMALL, TEXT, new_figure, save, tidy

_MARKERS = "oDs^vP*XdpH"
_ROOM_ABOVE = 0.07
"""For the names of the best points, as a share of the height."""
_LABEL_ROOM = 3.0
"""Per cent that two points of a curve must lie apart to be labelled one by one."""


def draw_study(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write accuracy against FLOPs, bars: 95 % intervals over seeds.

    What has a router has a colour and stands in the legend, its points joined; the others are grey.
    """
    figure = new_figure(10, 7.5)
    axes = figure.subplots()
    tidy(axes)
    palette = colormaps["tab10"]
    routed = list(dict.fromkeys(row["method"] for row in rows if row["kind"] == "router"))
    labels: list[Label] = []
    strokes: list[Stroke] = []
    for method in dict.fromkeys(row["method"] for row in rows):
        members = sorted(
            (_Marker.of(row) for row in rows if row["method"] == method), key=lambda each: each.cost.mean
        )
        if method in routed:
            place = routed.index(method)
            colour, marker = to_hex(palette(place % 10)), _MARKERS[place % len(_MARKERS)]
            labels += [_range_label(near, colour) for near in _clusters(members)]
        else:
            colour, marker = QUIET, "o"
            labels += [Label(each.point, each.cost.mean, each.accuracy.mean, TEXT) for each in members]
        _draw_method(axes, method if method in routed else None, members, colour, marker)
        strokes += [stroke for each in members for stroke in each.strokes()]
        if method in routed:
            strokes += line([(each.cost.mean, each.accuracy.mean) for each in members])
    low, top = axes.get_ylim()
    top = min(top, 101)
    dearest = max(row["estimates"]["flops_paper"]["mean"] for row in rows)
    axes.set_xlim(0, max(105, 1.05 * dearest))  # intervals of few seeds go far beyond what there is
    axes.set_ylim(low, top + _ROOM_ABOVE * (top - low))
    axes.set_xlabel("FLOPs of the visual tokens, % of dense (Eq. 8)", fontsize=NORMAL, color=TEXT)
    axes.set_ylabel("mean accuracy, %", fontsize=NORMAL, color=TEXT)
    axes.set_title("Accuracy against cost, mean over seeds", fontsize=LARGE, color=TEXT, loc="left")
    if routed:
        axes.legend(loc="lower right", frameon=False, fontsize=SMALL, title="with a router")
    figure.supxlabel(
        "bars: 95 % intervals over seeds, cut at the edges", fontsize=SMALL, color=QUIET, ha="right", x=0.99
    )
    write_labels(figure, axes, labels, strokes, SMALL)
    save(figure, path)


class _Marker(NamedTuple):
    """One point of the figure."""

    point: str
    cost: Estimate
    accuracy: Estimate

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        cost, accuracy = (Estimate(**row["estimates"][name]) for name in ("flops_paper", "accuracy"))
        return cls(row["point"], cost, accuracy)

    @property
    def value(self) -> str:
        """What stands behind @."""
        return self.point.partition("@")[2]

    def strokes(self) -> list[Stroke]:
        """List what no name may cover."""
        x, y = self.cost.mean, self.accuracy.mean
        up, right = self.accuracy.half_width or 0.0, self.cost.half_width or 0.0
        return [point(x, y), Stroke(x, y - up, y + up), *line([(x - right, y), (x + right, y)])]


def _draw_method(axes: Axes, name: str | None, members: Sequence[_Marker], colour: str, marker: str) -> None:
    axes.errorbar(
        [each.cost.mean for each in members],
        [each.accuracy.mean for each in members],
        xerr=[each.cost.half_width or 0.0 for each in members],
        yerr=[each.accuracy.half_width or 0.0 for each in members],
        color=colour,
        marker=marker,
        markersize=7,
        linestyle="none" if name is None else "-",  # controls of one name are trained one by one
        linewidth=1.2,
        elinewidth=0.8,
        alpha=0.85,
        label=name,
    )


def _range_label(near: Sequence[_Marker], colour: str) -> Label:
    """Name markers that stand together: the method's name, or @ with the values of a curve."""
    last = near[-1]
    text = f"@{named_range([each.value for each in near])}" if last.value else last.point
    return Label(text, last.cost.mean, last.accuracy.mean, colour)


def _clusters(markers: Sequence[_Marker]) -> list[list[_Marker]]:
    """Put neighbours of a curve together whose markers cover each other, so that one label serves them."""
    clusters: list[list[_Marker]] = []
    for here in markers:
        last = clusters[-1][-1] if clusters else None
        is_near = last is not None and all(
            abs(left.mean - right.mean) < _LABEL_ROOM
            for left, right in ((here.cost, last.cost), (here.accuracy, last.accuracy))
        )
        if is_near:
            clusters[-1].append(here)
        else:
            clusters.append([here])
    return clusters


def named_range(values: Sequence[str]) -> str:
    """Name what stands behind @ by its ends, numbers by the least and the greatest.

    >>> named_range(["0.5", "0.05", "0.1"]), named_range(["2"]), named_range(["slow", "fast"])
    ('0.05 to 0.5', '2', 'slow to fast')
    """
    try:
        listed = sorted(values, key=float)
    except ValueError:
        listed = list(values)
    return listed[0] if len(listed) == 1 else f"{listed[0]} to {listed[-1]}"
