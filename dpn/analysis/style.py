"""How the figures look: one font size table, one colour per kind of run and per expert."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

TEXT = "#222222"
QUIET = "#8a8a8a"
ROUTER_COLOURS = ("#c1440e", "#1f6f8b", "#6a4c93", "#3a7d44")
SMALL, NORMAL, LARGE = 9, 11, 13


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches that lays itself out and needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes) -> None:
    """Leave only the axes and labels that carry information."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(QUIET)
    axes.tick_params(colors=TEXT, labelsize=SMALL + 1, length=3)


def expert_colours(kernels: Sequence[str]) -> dict[str, str]:
    """Give each kernel a colour, darker where it merges more; they differ in grey print too."""
    palette = colormaps["YlGnBu"]
    steps = max(1, len(kernels) - 1)
    return {kernel: to_hex(palette(0.18 + 0.62 * index / steps)) for index, kernel in enumerate(kernels)}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; text is drawn as it is, so that a "$" in a question starts no formula."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    figure.savefig(path, dpi=150, metadata={"Software": None})
