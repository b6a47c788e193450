"""Oracle frontiers, constant routes and the router in one picture, a panel per benchmark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from dpn.analysis.style import LARGE, NORMAL, QUIET, ROUTER_COLOURS, SMALL, TEXT, new_figure, save, tidy

_ROUTER, _ORACLE, _BY_KIND = ROUTER_COLOURS[:3]
_PER_ROW = 3
_LOWEST_SPAN = 10.0
"""Percent of accuracy that a panel shows at least."""


def draw_oracles(summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the figure of what `dpn.analysis.oracle` found."""
    columns = min(_PER_ROW, len(summaries))
    rows = -(-len(summaries) // columns)
    figure = new_figure(4.7 * columns + (2.4 if columns == 1 else 0), 4.1 * rows + 0.7)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, found in zip(panels, summaries, strict=False):
        _draw_panel(axes, found)
    for axes in panels[len(summaries) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=SMALL + 1
    )
    figure.suptitle("What the routes of one checkpoint could reach", fontsize=LARGE, color=TEXT)
    save(figure, path)


def _draw_panel(axes: Axes, found: dict[str, Any]) -> None:
    tidy(axes)
    router, at_cost = found["router"], found["oracle"]["accuracy_at_router_cost"]
    styles = {
        "oracle": ("oracle", _ORACLE, "-"),
        "by_kind": ("oracle by kind", _BY_KIND, "-"),
        "constant": ("one route for all", QUIET, "--"),
    }
    for key, (label, colour, line) in styles.items():
        if key in found:
            corners = [*found[key]["curve"], (_dearest(found), found[key]["best_accuracy"])]
            x, y = zip(*corners, strict=True)
            dots = {"marker": "o", "markersize": 3} if key == "by_kind" else {}
            axes.plot(x, y, line, color=colour, linewidth=1.6, label=label, zorder=2, **dots)
    points = found["routes"].values()
    axes.scatter(
        [at["cost"] for at in points],
        [at["accuracy"] for at in points],
        s=22,
        color=QUIET,
        alpha=0.7,
        linewidths=0,
        label="a forced route",
        zorder=3,
    )
    lost = {"color": _ROUTER, "linewidth": 1.1, "linestyle": ":", "zorder": 4}
    axes.plot([router["cost"]] * 2, [router["accuracy"], at_cost], **lost)
    at_accuracy = found["oracle"]["cost_at_router_accuracy"]
    axes.plot([at_accuracy, router["cost"]], [router["accuracy"]] * 2, **lost)
    axes.scatter(
        [router["cost"]], [router["accuracy"]], s=70, marker="D", color=_ROUTER, label="the router", zorder=5
    )
    axes.set_title(
        f"{found['benchmark']}, {found['questions']} questions", fontsize=NORMAL, color=TEXT, loc="left"
    )
    axes.set_xlabel("FLOPs, % of dense", fontsize=NORMAL, color=TEXT)
    axes.set_ylabel("accuracy, %", fontsize=NORMAL, color=TEXT)
    accuracies = [at["accuracy"] for at in points]
    low, high = min(accuracies), max(accuracies)
    axes.set_ylim(min(low, high - _LOWEST_SPAN) - 1.5, high + 1.5)


def _dearest(found: dict[str, Any]) -> float:
    """Return the cost of the route that costs most, up to which the curves are drawn."""
    return max(at["cost"] for at in found["routes"].values())
