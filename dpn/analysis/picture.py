"""A table as a picture: every column as wide as its widest cell, headings in two storeys."""

import re
import textwrap
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath

from dpn.analysis.render import Table
from dpn.analysis.style import LARGE, NORMAL, QUIET, SMALL, TEXT, new_figure, save

_POINTS_PER_INCH = 72.0
_LINE = 1.5 * SMALL / _POINTS_PER_INCH
"""Inches from one line of small text to the next."""
_X_HEIGHT = 0.36 * SMALL / _POINTS_PER_INCH
"""Inches from the middle of a line of small text to its baseline."""
_PADDING = 0.1
"""Inches on each side of a cell, and above and below its lines together."""
_MARGIN = 0.15
_TITLE = 0.45
_LONGEST = 14
"""Characters after which a label breaks at its next mark."""


class _Page:
    """A figure that is written on in inches from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure: Figure = new_figure(width, height)
        self.figure.set_layout_engine("none")

    def write(self, x: float, y: float, text: str, align: str, size: int = SMALL, colour: str = TEXT) -> None:
        """Write lines of text around height y, the left, right or center of each at x."""
        look = {"fontsize": size, "color": colour, "ha": align, "va": "baseline", "parse_math": False}
        lines = text.split("\n")
        pitch = _pitch(size)
        first = y - (len(lines) - 1) / 2 * pitch + _X_HEIGHT * size / SMALL
        for number, line in enumerate(lines):
            self.figure.text(x / self.width, 1 - (first + number * pitch) / self.height, line, **look)

    def rule(self, left: float, right: float, y: float, width: float) -> None:
        """Draw a horizontal line."""
        ends = [left / self.width, right / self.width]
        self.figure.add_artist(Line2D(ends, [1 - y / self.height] * 2, color=TEXT, linewidth=width))


def draw(table: Table, path: Path) -> None:
    """Write the table as a PNG."""
    headings = [_broken(heading) for _, heading in table.headings]
    rows = [[_broken(cell) for cell in row] for row in table.rows]
    edges = _edges(table, [headings, *rows])
    has_groups = any(group for group, _ in table.groups)
    heights = [_height(row) for row in (headings, *rows)]
    notes = [line for note in table.notes for line in _filled(f"* {note}", edges[-1] - edges[0], "  ")]
    size = NORMAL if len(table.headings) < 6 else LARGE
    title = _filled(table.title, (edges[-1] - edges[0]) * SMALL / size)
    storey = _TITLE + (len(title) - 1) * _pitch(size)
    above = storey + (_height([""]) if has_groups else 0.0)
    bottom = above + sum(heights)
    right = max(edges[-1], _MARGIN + max(map(_width, title)) * size / SMALL)
    page = _Page(right + _MARGIN, bottom + _PADDING + len(notes) * _LINE + _MARGIN)
    page.write(_MARGIN, storey / 2, "\n".join(title), "left", size)
    page.rule(edges[0], edges[-1], storey, 1.2)
    if has_groups:
        _write_groups(page, table, edges, storey)
    tops = list(accumulate(heights, initial=above))
    for row, (top, end) in zip((headings, *rows), pairwise(tops), strict=True):
        for place, (cell, (left, right)) in enumerate(zip(row, pairwise(edges), strict=True)):
            at, align = (left + _PADDING, "left") if place == 0 else (right - _PADDING, "right")
            page.write(at, (top + end) / 2, cell, align)
    page.rule(edges[0], edges[-1], tops[1], 0.8)
    page.rule(edges[0], edges[-1], bottom, 1.2)
    for number, line in enumerate(notes):
        page.write(_MARGIN, bottom + _PADDING + (number + 0.5) * _LINE, line, "left", colour=QUIET)
    save(page.figure, path)


def _write_groups(page: _Page, table: Table, edges: Sequence[float], top: float) -> None:
    """Write the upper storey of the headings below `top`, each over a line."""
    first, y = 0, top + _height([""])
    for group, members in table.groups:
        left, right = edges[first], edges[first + len(members)]
        if group:
            page.write((left + right) / 2, top + _height([""]) / 2, group, "center")
            page.rule(left + _PADDING, right - _PADDING, y, 0.6)
        first += len(members)


def _edges(table: Table, rows: Sequence[Sequence[str]]) -> list[float]:
    """Return the left edge of every column and the right edge of the last, in inches."""
    widths = [max(map(_width, column)) + 2 * _PADDING for column in zip(*rows, strict=True)]
    first = 0
    for group, members in table.groups:
        short = _width(group) + 2 * _PADDING - sum(widths[first : first + len(members)])
        if short > 0:
            widths[first] += short
        first += len(members)
    return list(accumulate(widths, initial=_MARGIN))


def _width(text: str) -> float:
    """Return the inches that text takes."""
    lines = [line.replace("$", r"\$") for line in text.split("\n") if line.strip()]  # else it is a formula
    points = (TextPath((0, 0), line, size=SMALL).get_extents().width for line in lines)
    return max(points, default=0.0) / _POINTS_PER_INCH


def _height(cells: Sequence[str]) -> float:
    return max(cell.count("\n") + 1 for cell in cells) * _LINE + _PADDING


def _broken(cell: str) -> str:
    """Break a long label at its marks; other cells stay whole, intervals go below their value."""
    if " [" in cell:
        return cell.replace(" [", "\n[", 1)
    if " " in cell or len(cell) <= _LONGEST:
        return cell
    lines = [""]
    for part in re.split(r"(?<=[_+-])", cell):
        if lines[-1] and len(lines[-1]) + len(part) > _LONGEST:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _pitch(size: int) -> float:
    """Return the inches from one line of text of a size to the next."""
    return _LINE * size / SMALL


def _filled(text: str, width: float, indent: str = "") -> list[str]:
    """Break a text into lines of about a width in inches, all but the first indented."""
    characters = int(width / _width("n" * 40) * 40 * 1.05)
    return textwrap.wrap(text, max(40, characters), subsequent_indent=indent)
