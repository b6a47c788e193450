"""The small world: an 8x8 board of coloured digits, each cell 16x16 pixels, so one visual token per cell.

Rows are called by number words (zero ... seven, from the top), columns by letters (P ... W, from the left)
and digits by numerals (0 ... 7), so that every word of the world means one thing. A digit also names a row:
"jumping" from a cell means going, in the same column, to the row that its digit names.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

SIDE = 8
"""Cells per row and per column."""
ROWS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
COLUMNS = ("P", "Q", "R", "S", "T", "U", "V", "W")
DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7")
COLORS = ("red", "green", "blue", "yellow", "purple", "white")
EMPTY = "empty"
"""The word for a cell without a digit."""

DENSITIES = (0.6, 0.95)
"""Share of the cells that hold a digit, on a sparse and on a dense board."""
DETAILS = ("coarse", "fine")
"""Levels of detail: digits drawn large or small."""

PATTERNS = {"uniform": 0.25, "rows": 0.2, "columns": 0.2, "scattered": 0.35}
"""How often each pattern appears on the boards of stage 1."""

_POPULARITY = np.array([0.26, 0.20, 0.18, 0.14, 0.12, 0.10])
"""How often each color is the first of a board: POPE's "popular" objects need frequent and rare ones."""
_PARTNER = (1, 0, 3, 2, 5, 4)
"""Colors that like to appear together: POPE's "adversarial" objects need companions."""
_MIN_CELLS = 5
"""Cells that a main color covers at least."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What one image shows; -1 stands for an empty cell."""

    colors: np.ndarray
    """(8, 8) index into COLORS, or -1."""
    digits: np.ndarray
    """(8, 8) digit, or -1."""
    main: tuple[int, ...]
    """Colors that cover many cells."""
    rare: int
    """The color that covers one to four cells, or -1."""
    detail: str
    """One of DETAILS."""

    @property
    def absent(self) -> tuple[int, ...]:
        """Colors that do not appear."""
        return tuple(color for color in range(len(COLORS)) if color not in self.main and color != self.rare)

    def count(self, color: int) -> int:
        """Cells of one color."""
        return int((self.colors == color).sum())

    def words(self, row: int, column: int) -> tuple[str, ...]:
        """Say what is in a cell: ("red", "3"), or ("empty",)."""
        if self.digits[row, column] < 0:
            return (EMPTY,)
        return COLORS[self.colors[row, column]], DIGITS[self.digits[row, column]]


def random_scene(rng: Generator) -> Scene:
    """Draw a scattered board: two or three main colors, one rare color, sparse or dense, coarse or fine."""
    palette = _palette(rng)
    num_main = int(rng.integers(2, 4))
    main, rare = palette[:num_main], palette[num_main]
    filled = rng.random(SIDE * SIDE) < DENSITIES[rng.integers(2)]
    places = rng.permutation(np.flatnonzero(filled))
    num_rare = int(rng.integers(1, 5))
    colors = np.full(SIDE * SIDE, -1)
    colors[places[:num_rare]] = rare
    rest = places[num_rare:]
    shares = rng.dirichlet([1.5] * num_main)
    colors[rest] = rng.choice(main, size=len(rest), p=shares)
    colors[rest[: _MIN_CELLS * num_main]] = np.repeat(main, _MIN_CELLS)[: len(rest)]
    digits = np.where(colors < 0, -1, rng.integers(0, len(DIGITS), SIDE * SIDE))
    return Scene(
        colors=colors.reshape(SIDE, SIDE),
        digits=digits.reshape(SIDE, SIDE),
        main=tuple(main),
        rare=rare,
        detail=DETAILS[rng.integers(2)],
    )


def patterned_scene(rng: Generator, pattern: str) -> Scene:
    """Draw a board for stage 1 (a key of PATTERNS), where the whole image, a row or a column is alike.

    A new projector learns digits and colors on boards of one kind first, then places on stripes.
    """
    if pattern == "scattered":
        return random_scene(rng)
    repeats = {"uniform": (1, 1), "rows": (SIDE, 1), "columns": (1, SIDE)}[pattern]
    filled = rng.random((SIDE, SIDE)) < DENSITIES[1]
    colors = np.where(filled, rng.integers(0, len(COLORS), repeats), -1)
    digits = np.where(filled, rng.integers(0, len(DIGITS), repeats), -1)
    main = tuple(int(color) for color in np.unique(colors[filled]))
    return Scene(colors=colors, digits=digits, main=main, rare=-1, detail=DETAILS[rng.integers(2)])


def _palette(rng: Generator) -> list[int]:
    """Order all colors by importance: first by popularity, companions often next to each other."""
    order = [int(color) for color in rng.choice(len(COLORS), size=len(COLORS), replace=False, p=_POPULARITY)]
    if rng.random() < 0.6:
        partner = _PARTNER[order[0]]
        order.remove(partner)
        order.insert(1, partner)
    return order


def popular_colors() -> tuple[int, ...]:
    """Colors from the most to the least frequent."""
    return tuple(int(color) for color in np.argsort(-_POPULARITY))


def companion(color: int) -> int:
    """Return the color that appears most often together with this one."""
    return _PARTNER[color]
