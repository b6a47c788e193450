"""What the benchmark files of the small world have in common: lines, choices, annotators, writing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.random import Generator

from llava.toy.boards import Board, draw_boards, stream
from llava.toy.questions import Question, ask
from llava.toy.world import COLORS, COLUMNS, DIGITS, ROWS

NUM_ANSWERS = 10
"""Answers per question of TextVQA, VQAv2 and VizWiz: scorers want exactly ten."""
LETTERS = "ABCD"
_POOLS = (("yes", "no"), COLORS, DIGITS, ROWS, COLUMNS)
"""What an answer may be confused with."""


class Choice(NamedTuple):
    """A question with lettered options."""

    options: list[str]
    letter: str
    """The right one."""

    def lines(self) -> str:
        """Write one line per option: "A. red"."""
        return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False))


def choose(question: Question, rng: Generator, count: int = 4) -> Choice:
    """Mix the answer with others of its kind: `count` options, two for yes and no."""
    pool = next(pool for pool in _POOLS if question.answer in pool)
    others = [str(word) for word in rng.permutation([word for word in pool if word != question.answer])]
    options = [str(word) for word in rng.permutation([question.answer, *others[: count - 1]])]
    return Choice(options, LETTERS[options.index(question.answer)])


def ask_about_boards(
    folder: Path, *, seed: int, part: str, count: int, name: str, kinds: Sequence[str], per_board: int = 2
) -> list[tuple[Board, Question]]:
    """Draw boards (PNG files, whatever their name) and ask `count` questions, the kinds in turn."""
    boards = draw_boards(folder, seed=seed, part=part, count=boards_for(count, per_board), name=name)
    rng = stream(seed, part, "questions")
    return [
        (boards[index // per_board], ask(kinds[index % len(kinds)], boards[index // per_board].scene, rng))
        for index in range(count)
    ]


def question_line(
    name: str | int, image: str, question: Question, text: str, category: str
) -> dict[str, Any]:
    """Make a line of LLaVA's question files, with the kind and the grade of the question."""
    return {
        "question_id": name,
        "image": image,
        "text": text,
        "category": category,
        "kind": question.kind,
        "grade": question.grade,
    }


def boards_for(count: int, per_board: int) -> int:
    """Return how many boards `count` questions need."""
    return -(-count // per_board)


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
