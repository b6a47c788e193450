"""Files of ScienceQA's test split about the small world: lettered questions, half without an image."""

from pathlib import Path
from typing import Any

from llava.toy.benchmarks.files import LETTERS, boards_for, choose, write_json
from llava.toy.boards import draw_boards, stream
from llava.toy.questions import ask, ask_text_only

_KINDS = ("color", "digit", "exist", "jump1")


def write_scienceqa(folder: Path, *, seed: int, count: int) -> None:
    """Images, LLaVA's question file, the problems and the splits."""
    num_boards = boards_for(count, 2)
    images = folder / "images" / "test"
    boards = draw_boards(images, seed=seed, part="scienceqa", count=num_boards, name="%d/image.png")
    rng = stream(seed, "scienceqa questions")
    records: list[dict[str, Any]] = []
    problems: dict[str, dict[str, Any]] = {}
    for index in range(count):
        board = boards[index // 2] if index % 2 == 0 else None
        name = f"{index // 2 if board else num_boards + index // 2}"
        kind = _KINDS[index // 2 % len(_KINDS)]
        question = ask_text_only(rng) if board is None else ask(kind, board.scene, rng)
        choice = choose(question, rng, count=3)
        text = f"{question.text}\n{choice.lines()}"
        human = text if board is None else f"<image>\nContext: A board of digits.\n{text}"
        turns = [{"from": "human", "value": human}, {"from": "gpt", "value": choice.letter}]
        image = {} if board is None else {"image": board.path}
        records.append({"id": name, **image, "conversations": turns})
        problems[name] = {
            "question": question.text,
            "choices": choice.options,
            "answer": LETTERS.index(choice.letter),
            "hint": "" if board is None else "A board of digits.",
            "image": None if board is None else "image.png",
            "split": "test",
        }
    write_json(folder / "llava_test_CQM-A.json", records)
    write_json(folder / "problems.json", problems)
    write_json(folder / "pid_splits.json", {"train": [], "val": [], "test": list(problems)})
