"""Files of GQA's testdev-balanced split about the small world."""

from pathlib import Path
from typing import Any

from llava.toy.benchmarks.files import boards_for, question_line, write_json, write_lines
from llava.toy.boards import Board, draw_boards, stream
from llava.toy.questions import SUFFIX, Question, ask

_KINDS = ("jump2", "exist", "jump1", "color", "digit", "count", "jump2", "exist", "color", "jump1")
"""Kinds of questions in turn."""
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
    boards = draw_boards(
        folder / "images", seed=seed, part="gqa", count=boards_for(count, 4), name="n%06d.png"
    )
    rng = stream(seed, "gqa questions")
    asked = [(boards[index // 4], index) for index in range(count)]
    lines, official = [], {}
    for board, index in asked:
        question = ask(_KINDS[index % len(_KINDS)], board.scene, rng)
        name = f"{201000000 + index}"
        lines.append(question_line(name, board.path, question, f"{question.text}{SUFFIX}", "default"))
        official[name] = _entry(name, board, question)
    write_lines(folder / "llava_gqa_testdev_balanced.jsonl", lines)
    data = folder / "data"
    data.mkdir(exist_ok=True)
    write_json(data / "testdev_balanced_questions.json", official)


def _entry(name: str, board: Board, question: Question) -> dict[str, Any]:
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
