"""The file of MMBench dev about the small world: every question once per rotation of its options."""

import base64
import csv
from pathlib import Path

from llava.toy.benchmarks.files import LETTERS, boards_for, choose
from llava.toy.boards import board_bytes, stream
from llava.toy.questions import ask
from llava.toy.world import random_scene

_COLUMNS = (
    *("index", "question", "hint", *LETTERS, "answer", "category", "image", "source"),
    *("l2-category", "comment", "split"),
)
_KINDS = ("color", "digit", "exist", "jump1")
_CIRCLE = 1_000_000
"""What a rotated copy's index lies above that of the rotation before."""


def write_mmbench(folder: Path, *, seed: int, count: int) -> None:
    """One TAB-separated file with the images in it, about `count` rows."""
    rows = [dict(zip(_COLUMNS, _COLUMNS, strict=True))]
    for number in range(boards_for(count, len(LETTERS))):
        rng = stream(seed, "mmbench", number)
        scene = random_scene(rng)
        image = base64.b64encode(board_bytes(scene, rng)).decode()
        question = ask(_KINDS[number % len(_KINDS)], scene, rng)
        choice = choose(question, rng)
        for turn in range(len(choice.options)):
            options = [*choice.options[turn:], *choice.options[:turn]]
            rows.append(
                {
                    "index": str(number + turn * _CIRCLE),
                    "question": question.text,
                    "hint": "A board of digits." if number % 3 == 0 else "",
                    **dict(zip(LETTERS, options, strict=False)),
                    "answer": LETTERS[options.index(question.answer)],
                    "category": question.kind,
                    "image": image,
                    "source": "the small world",
                    "l2-category": question.grade,
                    "comment": "",
                    "split": "dev",
                }
            )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mmbench_dev_20230712.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="", delimiter="\t", lineterminator="\n")
        writer.writerows(rows)
