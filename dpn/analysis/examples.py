"""A few test images with the grid of visual tokens that the route left in every stage."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from PIL import Image

from dpn.analysis.results import Run, grades
from dpn.analysis.style import LARGE, NORMAL, QUIET, SMALL, TEXT, new_figure, save

_FILL = (122, 116, 104)
"""Mean colour with which LLaVA pads an image to a square."""
_STROKES = (("black", 2.4), ("white", 1.0))
"""Colour and width of the grid, outer stroke first: white in a black casing shows on any image."""
_PANEL_INCHES = 2.1
_TEXT_INCHES = 3.6
_LINE_WIDTH = 38


def choose_examples(run: Run, per_grade: int = 2) -> list[dict[str, Any]]:
    """Pick answers evenly spread over each grade, right or wrong as they come."""
    chosen = []
    for grade in grades([run]) or [None]:
        members = [row for row in run.answers if is_shown(row) and row.get("grade") == grade]
        step = max(1, len(members) // per_grade)
        chosen += members[step // 2 :: step][:per_grade]
    return chosen


def is_shown(row: dict[str, Any]) -> bool:
    """Say whether an answer has a route and an image file."""
    return bool(row["route"]) and row["image"] is not None


def stage_grids(num_tokens: int, route: Sequence[str]) -> list[tuple[int, int]]:
    """Return rows and columns of visual tokens before the first DPE and after each.

    >>> stage_grids(64, ["1x2", "2x2"])
    [(8, 8), (8, 4), (4, 2)]
    """
    side = math.isqrt(num_tokens)
    if side * side != num_tokens or not num_tokens:
        raise ValueError(f"{num_tokens} visual tokens are no square grid; examples show one square image")
    grids = [(side, side)]
    for kernel in route:
        height, width = map(int, kernel.split("x"))
        rows, columns = grids[-1]
        grids.append((math.ceil(rows / height), math.ceil(columns / width)))
    return grids


def choose_by_route(run: Run, count: int = 6) -> list[dict[str, Any]]:
    """Pick one answer for each of the routes taken most often: the one in the middle of them."""
    members: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in run.answers:
        if is_shown(row):
            members.setdefault(tuple(row["route"]), []).append(row)
    common = sorted(members, key=lambda route: (-len(members[route]), route))[:count]
    return [members[route][len(members[route]) // 2] for route in common]


def draw_examples(
    run: Run,
    data_root: Path,
    path: Path,
    *,
    examples: Sequence[dict[str, Any]] | None = None,
    title: str = "visual tokens left in each stage (questions not chosen by hand)",
) -> None:
    """Write the figure: one row per question, one image per stage; `examples` may name the answers."""
    examples = choose_examples(run) if examples is None else examples
    if not examples:
        raise ValueError(f"run {run.name!r} has no answers with a route; {path.name} shows routes")
    columns = max(len(row["route"]) for row in examples) + 1
    figure = new_figure(_TEXT_INCHES + _PANEL_INCHES * columns, _PANEL_INCHES * len(examples) + 0.7)
    widths = [_TEXT_INCHES / _PANEL_INCHES, *[1] * columns]
    panels = figure.subplots(len(examples), columns + 1, squeeze=False, width_ratios=widths)
    for row, (text_axes, *image_axes) in zip(examples, panels, strict=True):
        _describe(text_axes, row)
        image = square_image(data_root / row["image"])
        grids = stage_grids(row["visual_tokens_per_layer"][0], row["route"])
        for stage, (axes, grid) in enumerate(zip(image_axes, grids, strict=True)):
            draw_grid(axes, image, grid)
            axes.set_title(stage_title(row, stage, grid), fontsize=SMALL, color=TEXT, pad=3)
    figure.suptitle(f"{run.name}: {title}", fontsize=LARGE, color=TEXT)
    save(figure, path)


def _describe(axes: Axes, row: dict[str, Any]) -> None:
    """Write question, answer and truth."""
    axes.axis("off")
    question = textwrap.fill(question_line(row["prompt"]), _LINE_WIDTH, max_lines=4)
    grade = row.get("grade", "")
    axes.text(0, 0.94, grade, fontsize=SMALL, color=QUIET, va="top", transform=axes.transAxes)
    axes.text(0, 0.82, question, fontsize=NORMAL, color=TEXT, va="top", transform=axes.transAxes)
    answer = textwrap.shorten(row["text"] or "(nothing)", _LINE_WIDTH)
    truth = textwrap.shorten(str(row.get("gold", "-")), _LINE_WIDTH)
    said = f"answer: {answer}   ({verdict(row)})\ntruth: {truth}"
    axes.text(0, 0.06, said, fontsize=NORMAL, color=TEXT, va="bottom", transform=axes.transAxes)


def verdict(row: dict[str, Any]) -> str:
    """Say in a word how right an answer is."""
    score = row["score"]
    if score is None:
        return "not scored"
    return "right" if score >= 1 else "wrong" if score <= 0 else f"scores {score:.1f}"


def question_line(prompt: str) -> str:
    """Return the question of a prompt without instruction and OCR tokens; where nothing else is there, those.

    >>> question_line("Reference OCR token: A")
    'Reference OCR token: A'
    """
    lines = prompt.split("\n")
    return next((line for line in lines if not line.startswith("Reference OCR token")), lines[0])


def stage_title(row: dict[str, Any], stage: int, grid: tuple[int, int]) -> str:
    """Say what a DPE chose and what is left."""
    rows, columns = grid
    size = f"{rows} x {columns} = {rows * columns}"
    return f"start: {size}" if stage == 0 else f"after {row['route'][stage - 1]}: {size}"


def draw_grid(axes: Axes, image: Image.Image, grid: tuple[int, int]) -> None:
    """Show the image with the borders of its token cells."""
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
    (rows, columns), (width, height) = grid, image.size
    across = [width * column / columns - 0.5 for column in range(columns + 1)]
    down = [height * row / rows - 0.5 for row in range(rows + 1)]
    for colour, stroke in _STROKES:
        axes.vlines(across, -0.5, height - 0.5, color=colour, linewidth=stroke)
        axes.hlines(down, -0.5, width - 0.5, color=colour, linewidth=stroke)


def square_image(path: Path) -> Image.Image:
    """Open an image and pad it to a square, as the model sees it."""
    try:
        if not path.is_file():
            raise ValueError(f"{path}: no such image; give the --data_root that the run was evaluated on")
        image = Image.open(path).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path!s:.200}: the image can't be read ({error}); replace the file") from error
    side = max(image.size)
    square = Image.new("RGB", (side, side), _FILL)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
