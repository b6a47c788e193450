"""Training records in LLaVA's schema: captions for stage 1, short answers, dialogues and text for stage 2."""

from collections.abc import Sequence
from typing import Any

from numpy.random import Generator

from llava.toy.boards import Board
from llava.toy.questions import OCR_LINE, SUFFIX, Question, ask, ask_text_only, describe

CAPTION_CELLS = 16
"""Cells that a stage-1 caption reads out."""
_DIALOGUE_CAPTION_CELLS = 3
_INSTRUCTIONS = ("Describe the image.", "What does the image show?", "Read out some of the image.")
"""Human side of stage 1; LLaVA's plain template drops it."""
_STAGE2_SHARES = {"exist": 0.26, "count": 0.08, "color": 0.10, "digit": 0.18, "jump1": 0.17, "jump2": 0.21}
"""How often each kind of question about an image appears."""
_OCR_SHARE = 0.5
"""Share of the digit questions that carry TextVQA's line of OCR tokens."""
_FORMS = {"question": 0.90, "dialogue": 0.06, "text": 0.04}
"""Stage 2: one question, a dialogue of several about one image, or a record without an image."""

Record = dict[str, Any]


def caption_records(boards: Sequence[Board], rng: Generator, count: int) -> list[Record]:
    """Stage 1: one image and one caption each."""
    records = []
    for index in range(count):
        board = boards[index % len(boards)]
        instruction = str(rng.choice(_INSTRUCTIONS))
        human = f"<image>\n{instruction}" if rng.integers(2) else f"{instruction}\n<image>"
        turns = [(human, describe(board.scene, rng, CAPTION_CELLS))]
        records.append(_record(f"caption-{index:06d}", board.path, turns))
    return records


def instruction_records(boards: Sequence[Board], rng: Generator, count: int) -> list[Record]:
    """Stage 2: LLaVA-1.5's mixture in small."""
    records = []
    forms = rng.choice(list(_FORMS), size=count, p=list(_FORMS.values()))
    for index, form in enumerate(forms):
        board = boards[int(rng.integers(len(boards)))]
        name = f"{form}-{index:06d}"
        if form == "text":
            turns = [_turn(ask_text_only(rng), rng) for _ in range(int(rng.integers(1, 4)))]
            records.append(_record(name, None, turns))
        else:
            turns = _dialogue(board, rng) if form == "dialogue" else [_turn(_image_question(board, rng), rng)]
            first, answer = turns[0]
            records.append(_record(name, board.path, [(f"<image>\n{first}", answer), *turns[1:]]))
    return records


def _dialogue(board: Board, rng: Generator) -> list[tuple[str, str]]:
    """Two questions about one board, or a description and a question.

    Not more: a batch is padded to its longest sample, so that long dialogues would be paid for by all.
    """
    question = _turn(_image_question(board, rng), rng)
    if rng.random() < 0.3:
        return [("Describe the image.", describe(board.scene, rng, _DIALOGUE_CAPTION_CELLS)), question]
    return [question, _turn(_image_question(board, rng), rng)]


def _image_question(board: Board, rng: Generator) -> Question:
    kind = str(rng.choice(list(_STAGE2_SHARES), p=list(_STAGE2_SHARES.values())))
    return ask(kind, board.scene, rng)


def _turn(question: Question, rng: Generator) -> tuple[str, str]:
    has_ocr_line = question.kind == "digit" and rng.random() < _OCR_SHARE
    return f"{question.text}{OCR_LINE if has_ocr_line else ''}{SUFFIX}", question.answer


def _record(name: str, image: str | None, turns: Sequence[tuple[str, str]]) -> Record:
    conversations = [
        {"from": speaker, "value": value}
        for turn in turns
        for speaker, value in zip(("human", "gpt"), turn, strict=True)
    ]
    return {"id": name, **({"image": image} if image else {}), "conversations": conversations}
