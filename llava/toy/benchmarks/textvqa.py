"""Files of TextVQA's validation split about the small world."""

from collections.abc import Sequence
from pathlib import Path

from numpy.random import Generator

from llava.toy.benchmarks.files import NUM_ANSWERS, boards_for, question_line, write_json, write_lines
from llava.toy.boards import Board, draw_boards, stream
from llava.toy.questions import OCR_LINE, SUFFIX, Question, ask


def write_textvqa(folder: Path, *, seed: int, count: int) -> None:
    """Questions, images and annotations of TextVQA: read a digit; the list of OCR tokens is empty."""
    boards = draw_boards(
        folder / "train_images", seed=seed, part="textvqa", count=boards_for(count, 3), name="%016x.png"
    )
    rng = stream(seed, "textvqa questions")
    lines, annotations = [], []
    for index, (board, question) in enumerate(_reading_questions(boards, rng, count)):
        image_id = Path(board.path).stem
        lines.append(
            question_line(image_id, board.path, question, f"{question.text}{OCR_LINE}{SUFFIX}", "default")
        )
        annotations.append(
            {
                "question": question.text,
                "image_id": image_id,
                "question_id": 34602 + index,
                "answers": [question.answer] * NUM_ANSWERS,
                "image_width": 128,
                "image_height": 128,
                "ocr_tokens": [],
                "set_name": "val",
            }
        )
    write_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", lines)
    write_json(
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
