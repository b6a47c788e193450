"""Draws a board as an image: 128x128 pixels, one digit per 16x16 cell, jittered, on a grained dark ground."""

import numpy as np
from numpy.random import Generator
from PIL import Image

from llava.toy.world import SIDE, Scene

CELL = 16
"""Pixels per side of a cell; the tower's patches have the same size."""
IMAGE_SIDE = SIDE * CELL

_GLYPHS = (
    ("01110", "10001", "10011", "10101", "11001", "10001", "01110"),
    ("00100", "01100", "00100", "00100", "00100", "00100", "01110"),
    ("01110", "10001", "00001", "00110", "01000", "10000", "11111"),
    ("11110", "00001", "00001", "01110", "00001", "00001", "11110"),
    ("00010", "00110", "01010", "10010", "11111", "00010", "00010"),
    ("11111", "10000", "11110", "00001", "00001", "10001", "01110"),
    ("00110", "01000", "10000", "11110", "10001", "10001", "01110"),
    ("11111", "00001", "00010", "00100", "00100", "01000", "01000"),
)
_INK = np.array(
    [(220, 50, 47), (60, 190, 60), (70, 110, 240), (230, 210, 50), (190, 80, 220), (235, 235, 235)]
)
_SCALES = {"coarse": 2, "fine": 1}
"""Pixels per dot of a glyph: large digits are 10x14 pixels, small ones 5x7."""
_JITTER = {"coarse": 1, "fine": 2}
"""Largest distance in pixels from the middle of the cell."""
_GRAIN = 0.08
"""Share of the pixels that a speck hits."""


def render(scene: Scene, rng: Generator) -> Image.Image:
    """Draw a board."""
    return Image.fromarray(render_pixels(scene, rng))


def render_pixels(scene: Scene, rng: Generator) -> np.ndarray:
    """Draw a board as (128, 128, 3) bytes."""
    pixels = np.empty((IMAGE_SIDE, IMAGE_SIDE, 3))
    pixels[:] = rng.integers(18, 46, size=3)
    for row, column in zip(*(scene.digits >= 0).nonzero(), strict=True):
        cell = pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        _draw(cell, int(scene.digits[row, column]), _INK[scene.colors[row, column]], scene.detail, rng)
    specks = rng.random((IMAGE_SIDE, IMAGE_SIDE)) < _GRAIN
    pixels[specks] += rng.integers(-30, 31, size=(int(specks.sum()), 1))
    return pixels.clip(0, 255).astype(np.uint8)


def _draw(cell: np.ndarray, digit: int, ink: np.ndarray, detail: str, rng: Generator) -> None:
    """Put a digit near the middle of a cell (16, 16, 3), in a slightly varied color."""
    scale, jitter = _SCALES[detail], _JITTER[detail]
    glyph = _MASKS[digit].repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = glyph.shape
    top = (CELL - height) // 2 + int(rng.integers(-jitter, jitter + 1))
    left = (CELL - width) // 2 + int(rng.integers(-jitter, jitter + 1))
    cell[top : top + height, left : left + width][glyph] = ink + rng.integers(-15, 16, size=3)


_MASKS = [np.array([[dot == "1" for dot in line] for line in glyph]) for glyph in _GLYPHS]
