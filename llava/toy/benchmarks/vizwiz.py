"""Files of VizWiz's validation split about the small world."""

from pathlib import Path

from llava.toy.benchmarks.files import NUM_ANSWERS, ask_about_boards, write_json


def write_vizwiz(folder: Path, *, seed: int, count: int) -> None:
    """Images and the official val.json: one question per image, every fifth one can't be answered."""
    asked = ask_about_boards(
        folder / "val",
        seed=seed,
        part="vizwiz",
        count=count,
        name="VizWiz_val_%08d.jpg",
        kinds=("digit", "color", "exist", "count"),
        per_board=1,
    )
    entries = []
    for index, (board, question) in enumerate(asked):
        is_answerable = index % 5 != 4
        text, answer = (
            (question.text, question.answer) if is_answerable else ("What is this?", "unanswerable")
        )
        entries.append(
            {
                "image": board.path,
                "question": text,
                "answers": [{"answer": answer, "answer_confidence": "yes"}] * NUM_ANSWERS,
                "answer_type": "other" if is_answerable else "unanswerable",
                "answerable": int(is_answerable),
            }
        )
    write_json(folder / "val.json", entries)
