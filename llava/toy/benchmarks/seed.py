"""Files of SEED-Bench's images about the small world; there are no videos."""

from pathlib import Path

from llava.toy.benchmarks.files import (
    LETTERS,
    ask_about_boards,
    choose,
    question_line,
    write_json,
    write_lines,
)
from llava.toy.boards import stream

_CHOICE_SUFFIX = "\nAnswer with the option's letter from the given choices directly."
_TYPES = {"exist": 1, "color": 3, "digit": 4, "jump1": 6}
"""Kinds of questions, as numbers of SEED-Bench's types."""
_NAMES = {
    "Scene Understanding": 1,
    "Instance Identity": 2,
    "Instance Attributes": 3,
    "Instance Location": 4,
    "Instances Counting": 5,
    "Spatial Relation": 6,
}


def write_seed(folder: Path, *, seed: int, count: int) -> None:
    """Images without an extension, LLaVA's question file and the official annotations."""
    asked = ask_about_boards(
        folder / "SEED-Bench-image", seed=seed, part="seed", count=count, name="%d_1", kinds=tuple(_TYPES)
    )
    rng = stream(seed, "seed choices")
    lines, annotations = [], []
    for number, (board, question) in enumerate(asked):
        choice = choose(question, rng)
        options = [*choice.options, *["none of these", "all of these"]][: len(LETTERS)]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True))
        text = f"{question.text}\n{listed}{_CHOICE_SUFFIX}"
        type_id = _TYPES.get(question.kind, 2)
        name = next(name for name, known in _NAMES.items() if known == type_id)
        lines.append(question_line(number, f"SEED-Bench-image/{board.path}", question, text, name))
        annotations.append(
            {
                "answer": choice.letter,
                **{
                    f"choice_{letter.lower()}": option
                    for letter, option in zip(LETTERS, options, strict=True)
                },
                "data_id": board.path,
                "data_type": "image",
                "question": question.text,
                "question_id": str(number),
                "question_type_id": type_id,
            }
        )
    write_lines(folder / "llava-seed-bench.jsonl", lines)
    write_json(folder / "SEED-Bench.json", {"question_type": _NAMES, "questions": annotations})
