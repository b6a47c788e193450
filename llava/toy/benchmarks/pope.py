"""Files of POPE about the small world."""

from pathlib import Path

from llava.toy.benchmarks.files import boards_for, question_line, write_lines
from llava.toy.boards import draw_boards, stream
from llava.toy.questions import SUFFIX, ask_exist

_CATEGORIES = ("adversarial", "random", "popular")
_FIRST_ID = {"adversarial": 1, "random": 10_000_001, "popular": 20_000_001}


def write_pope(folder: Path, *, seed: int, count: int) -> None:
    """Questions, images and labels of POPE: per category two colors of each board, one of them absent."""
    num_boards = boards_for(count, 2 * len(_CATEGORIES))
    file_name = "COCO_val2014_%012d.png"
    boards = draw_boards(folder / "val2014", seed=seed, part="pope", count=num_boards, name=file_name)
    (folder / "coco").mkdir(exist_ok=True)
    lines = []
    for category in _CATEGORIES:
        rng = stream(seed, "pope", category)
        labels = []
        for index, (board, is_present) in enumerate(
            (board, flag) for board in boards for flag in (True, False)
        ):
            question = ask_exist(board.scene, rng, is_present=is_present, negatives=category)
            number = _FIRST_ID[category] + index
            lines.append(question_line(number, board.path, question, f"{question.text}{SUFFIX}", category))
            labels.append(
                {"question_id": number, "image": board.path, "text": question.text, "label": question.answer}
            )
        write_lines(folder / "coco" / f"coco_pope_{category}.json", labels)
    write_lines(folder / "llava_pope_test.jsonl", lines)
