"""Fig. 4: one image with a hard and an easy question, the pooling grid of every stage over it."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from dpn.analysis.examples import (
    draw_grid,
    is_shown,
    question_line,
    square_image,
    stage_grids,
    stage_title,
    verdict,
)
from dpn.analysis.render import Table
from dpn.analysis.results import Run, grades
from dpn.analysis.style import LARGE, NORMAL, SMALL, TEXT, new_figure, save

_PANEL_INCHES = 1.9
_TEXT_INCHES = 0.95
_CHARACTERS = 22
"""Of a line of text, per panel that it stands over."""

Answer = dict[str, Any]


class Pair(NamedTuple):
    """Two questions about one image."""

    hard: Answer
    easy: Answer


def choose_pairs(run: Run, count: int = 4) -> list[Pair]:
    """Pick images with questions of different grades, evenly spread; never by route or answer.

    Raises:
        ValueError: no image has questions of two grades.
    """
    order = grades([run])
    by_image: dict[str, list[Answer]] = {}
    for row in run.answers:
        if is_shown(row) and row.get("grade") in order:
            by_image.setdefault(row["image"], []).append(row)
    found = []
    for rows in by_image.values():
        rows.sort(key=lambda row: order.index(row["grade"]))
        if rows[0]["grade"] != rows[-1]["grade"]:
            found.append(Pair(hard=rows[-1], easy=rows[0]))
    if not found:
        raise ValueError(
            f"run {run.name!r}: no image was asked questions of two grades; name pairs with "
            "--pairs BENCHMARK:HARD_ID,EASY_ID"
        )
    step = max(1, len(found) // count)
    return found[step // 2 :: step][:count]


def named_pairs(run: Run, words: Sequence[str]) -> list[Pair]:
    """Find pairs given as BENCHMARK:HARD_ID,EASY_ID.

    Raises:
        ValueError: another form, or ids that aren't there, have no route, or are about two images.
    """
    return [_named_pair(run, word) for word in words]


def _named_pair(run: Run, word: str) -> Pair:
    benchmark, colon, ids = word.partition(":")
    names = ids.split(",")
    if not colon or len(names) != 2 or benchmark not in run.results:
        raise ValueError(
            f"--pairs takes BENCHMARK:HARD_ID,EASY_ID with a benchmark of {', '.join(run.results)}; got "
            f"{word!r}"
        )
    rows = {str(row["question_id"]): row for row in run.results[benchmark].answers if is_shown(row)}
    if missing := [name for name in names if name not in rows]:
        raise ValueError(f"--pairs {word}: no answer with a route and an image has the id {missing[0]}")
    pair = Pair(rows[names[0]], rows[names[1]])
    if pair.hard["image"] != pair.easy["image"]:
        raise ValueError(
            f"--pairs {word}: {names[0]} is about {pair.hard['image']}, {names[1]} about "
            f"{pair.easy['image']}; the two must be about one image"
        )
    return pair


def draw_pairs(pairs: Sequence[Pair], name: str, data_root: Path, path: Path) -> None:
    """Write the figure: a row per image, the hard question's stages left, the easy one's right."""
    stages = len(pairs[0].hard["route"])
    unit = _TEXT_INCHES + _PANEL_INCHES + 0.25
    figure = new_figure(_PANEL_INCHES * (2 * stages + 1) + 0.6, unit * len(pairs) + 0.6)
    blocks = figure.subfigures(len(pairs), 3, squeeze=False, width_ratios=[1, stages, stages], wspace=0.03)
    for pair, (plain, *halves) in zip(pairs, blocks, strict=True):
        image = square_image(data_root / pair.hard["image"])
        grids = stage_grids(pair.hard["visual_tokens_per_layer"][0], [])
        plain.suptitle("\n\n ", fontsize=NORMAL, linespacing=1.3)
        axes = plain.subplots()
        draw_grid(axes, image, grids[0])
        axes.set_title(stage_title(pair.hard, 0, grids[0]), fontsize=SMALL, color=TEXT, pad=3)
        for half, answer in zip(halves, pair, strict=True):
            half.suptitle(
                _said(answer, stages), fontsize=NORMAL, color=TEXT, x=0.02, ha="left", linespacing=1.3
            )
            _draw_stages(half.subplots(1, stages, squeeze=False)[0], image, answer)
    figure.suptitle(
        f"{name}: the same image with a harder and an easier question", fontsize=LARGE, color=TEXT
    )
    save(figure, path)


def _draw_stages(panels: Sequence[Axes], image: Any, answer: Answer) -> None:
    grids = stage_grids(answer["visual_tokens_per_layer"][0], answer["route"])
    for stage, axes in enumerate(panels, start=1):
        draw_grid(axes, image, grids[stage])
        axes.set_title(stage_title(answer, stage, grids[stage]), fontsize=SMALL, color=TEXT, pad=3)


def _said(answer: Answer, stages: int) -> str:
    """Write question and answer over the stages, always in three lines."""
    grade = f"{answer['grade']}: " if "grade" in answer else ""
    width = _CHARACTERS * stages
    lines = textwrap.wrap(f"{grade}{question_line(answer['prompt'])}", width, max_lines=2)
    said = textwrap.shorten(answer["text"] or "(nothing)", width // 2)
    return "\n".join([*lines, *[""] * (2 - len(lines)), f"answer: {said} ({verdict(answer)})"])


def pair_sheet(pairs: Sequence[Pair], name: str) -> Table:
    """List the pairs with their routes."""
    rows = []
    for pair in pairs:
        for answer in pair:
            tokens = answer["visual_tokens_per_layer"]
            rows.append(
                (
                    answer["image"],
                    answer.get("grade", "-"),
                    question_line(answer["prompt"]),
                    answer["text"],
                    verdict(answer),
                    ", ".join(answer["route"]),
                    f"{sum(tokens) / len(tokens):.1f}",
                )
            )
    headings = ("image", "grade", "question", "answer", "", "route", "visual tokens, mean over layers")
    return Table(
        title=f"Fig. 4, {name}: the same image with a harder and an easier question",
        groups=(("", headings),),
        rows=tuple(rows),
    )
