"""Boards with their image files: one numbered scene per image, each from its own random stream."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from llava.toy.render import render
from llava.toy.world import Scene, random_scene


class Board(NamedTuple):
    """A scene and the image file that shows it."""

    scene: Scene
    path: str
    """File name, relative to the folder given when it was drawn."""


def stream(seed: int, *names: str | int) -> Generator:
    """Give each purpose its own random stream, so that the size of one part doesn't change another."""
    words = [seed, *(int.from_bytes(str(name).encode(), "big") for name in names)]
    return np.random.default_rng(words)


def draw_boards(
    folder: Path,
    *,
    seed: int,
    part: str,
    count: int,
    name: str,
    draw: Callable[[Generator], Scene] = random_scene,
) -> list[Board]:
    """Write `count` images named by the pattern `name` (as in "n%06d.png") and return their boards.

    They are PNG files whatever the name says: benchmarks name files .jpg, and images are opened by content.
    """
    boards = []
    for index in range(count):
        rng = stream(seed, part, index)
        board = Board(draw(rng), name % index)
        (folder / board.path).parent.mkdir(parents=True, exist_ok=True)
        render(board.scene, rng).save(folder / board.path, format="PNG")
        boards.append(board)
    return boards


def board_bytes(scene: Scene, rng: Generator) -> bytes:
    """Draw a board as the bytes of a PNG file, for benchmarks that hold their images in one file."""
    buffer = io.BytesIO()
    render(scene, rng).save(buffer, format="PNG")
    return buffer.getvalue()
