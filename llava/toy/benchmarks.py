"""Benchmark files of the small world, in the formats that the scorers of GQA, POPE and TextVQA read.

Every question line has two keys more than upstream's: "kind" and "grade" (coarse, medium, fine).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.random import Generator

from llava.toy.boards import Board, draw_boards, stream
from llava.toy.questions import OCR_LINE, SUFFIX, Question, ask, ask_exist

_GQA_KINDS = ("jump2", "exist", "jump1", "color", "digit", "count", "jump2", "exist", "color", "jump1")
"""Kinds of GQA's questions in turn."""
_POPE_CATEGORIES = ("adversarial", "random", "popular")
_POPE_FIRST_ID = {"adversarial": 1, "random": 10_000_001, "popular": 20_000_001}
_NUM_ANSWERS = 10
"""Answers per TextVQA question: its scorer wants exactly ten."""
_STEPS = {
    "exist": [("select", "digit"), ("filter color", ""), ("exist", "?")],
    "count": [("select", "digit"), ("filter color", ""), ("count", "")],
    "color": [("select", "cell"), ("query", "color")],
    "digit": [("select", "cell"), ("query", "digit")],
    "jump1": [("select", "cell"), ("relate", "jump"), ("query", "digit")],
    "jump2": [("select", "cell"), ("relate", "jump"), ("relate", "jump"), ("query", "digit")],
}
"""GQA's functional program of each kind: (operation, argument)."""
_STRUCTURE = {"exist": "verify"}
_SEMANTICS = {"exist": "obj", "count": "global", "color": "attr"}


def write_gqa(folder: Path, *, seed: int, count: int) -> None:
    """Questions, images and the official question file of GQA's testdev-balanced split."""
    boards = draw_boards(folder / "images", seed=seed, part="gqa", count=_ceil(count, 4), name="n%06d.png")
    rng = stream(seed, "gqa questions")
    asked = [(boards[index // 4], index) for index in range(count)]
    lines, official = [], {}
    for board, index in asked:
        question = ask(_GQA_KINDS[index % len(_GQA_KINDS)], board.scene, rng)
        name = f"{201000000 + index}"
        lines.append(_line(name, board.path, question, f"{question.text}{SUFFIX}", "default"))
        official[name] = _gqa_entry(name, board, question)
    _write_lines(folder / "llava_gqa_testdev_balanced.jsonl", lines)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    _write_json(data / "testdev_balanced_questions.json", official)


def write_pope(folder: Path, *, seed: int, count: int) -> None:
    """Questions, images and labels of POPE: per category two colors of each board, one of them absent."""
    num_boards = _ceil(count, 2 * len(_POPE_CATEGORIES))
    file_name = "COCO_val2014_%012d.png"
    boards = draw_boards(folder / "val2014", seed=seed, part="pope", count=num_boards, name=file_name)
    (folder / "coco").mkdir(exist_ok=True)
    lines = []
    for category in _POPE_CATEGORIES:
        rng = stream(seed, "pope", category)
        labels = []
        for index, (board, is_present) in enumerate(
            (board, flag) for board in boards for flag in (True, False)
        ):
            question = ask_exist(board.scene, rng, is_present=is_present, negatives=category)
            number = _POPE_FIRST_ID[category] + index
            lines.append(_line(number, board.path, question, f"{question.text}{SUFFIX}", category))
            labels.append(
                {"question_id": number, "image": board.path, "text": question.text, "label": question.answer}
            )
        _write_lines(folder / "coco" / f"coco_pope_{category}.json", labels)
    _write_lines(folder / "llava_pope_test.jsonl", lines)


def write_textvqa(folder: Path, *, seed: int, count: int) -> None:
    """Questions, images and annotations of TextVQA: read a digit; the list of OCR tokens is empty."""
    boards = draw_boards(
        folder / "train_images", seed=seed, part="textvqa", count=_ceil(count, 3), name="%016x.png"
    )
    rng = stream(seed, "textvqa questions")
    lines, annotations = [], []
    for index, (board, question) in enumerate(_reading_questions(boards, rng, count)):
        image_id = Path(board.path).stem
        lines.append(_line(image_id, board.path, question, f"{question.text}{OCR_LINE}{SUFFIX}", "default"))
        annotations.append(
            {
                "question": question.text,
                "image_id": image_id,
                "question_id": 34602 + index,
                "answers": [question.answer] * _NUM_ANSWERS,
                "image_width": 128,
                "image_height": 128,
                "ocr_tokens": [],
                "set_name": "val",
            }
        )
    _write_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", lines)
    _write_json(
        folder / "TextVQA_0.5.1_val.json",
        {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": annotations},
    )


def _reading_questions(boards: Sequence[Board], rng: Generator, count: int) -> list[tuple[Board, Question]]:
    """Three different questions per board: the scorer knows a question by its image and its text."""
    pairs: dict[tuple[str, str], tuple[Board, Question]] = {}
    for index in range(count):
        board = boards[index // 3]
        question = ask("digit", board.scene, rng)
        while (board.path, question.text) in pairs:
            question = ask("digit", board.scene, rng)
        pairs[board.path, question.text] = (board, question)
    return list(pairs.values())


def _line(name: str | int, image: str, question: Question, text: str, category: str) -> dict[str, Any]:
    return {
        "question_id": name,
        "image": image,
        "text": text,
        "category": category,
        "kind": question.kind,
        "grade": question.grade,
    }


def _gqa_entry(name: str, board: Board, question: Question) -> dict[str, Any]:
    semantic = [
        {"operation": operation, "dependencies": [step - 1] if step else [], "argument": argument}
        for step, (operation, argument) in enumerate(_STEPS[question.kind])
    ]
    return {
        "semantic": semantic,
        "entailed": [],
        "equivalent": [name],
        "question": question.text,
        "imageId": Path(board.path).stem,
        "isBalanced": True,
        "groups": {"global": None, "local": f"toy-{question.kind}"},
        "answer": question.answer,
        "semanticStr": "->".join(f"{operation}: {argument}" for operation, argument in _STEPS[question.kind]),
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {
            "detailed": question.kind,
            "semantic": _SEMANTICS.get(question.kind, "rel"),
            "structural": _STRUCTURE.get(question.kind, "query"),
        },
        "fullAnswer": question.answer,
    }


def _ceil(count: int, per_board: int) -> int:
    return -(-count // per_board)


def _write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
