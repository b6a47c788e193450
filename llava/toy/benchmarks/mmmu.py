"""Files of MMMU's validation split about the small world: parquet with the images inside."""

import sys
from pathlib import Path
from typing import Any

from llava.toy.benchmarks.files import boards_for, choose, write_json
from llava.toy.boards import board_bytes, stream
from llava.toy.questions import ask
from llava.toy.world import random_scene

_SUBJECTS = ("Accounting", "Math", "Sociology")
_KINDS = ("digit", "color", "count", "jump1")


def write_mmmu(folder: Path, *, seed: int, count: int) -> None:
    """Three subjects of MMMU/MMMU and the file of right answers; every fourth question is an open one.

    Without pyarrow nothing is written, and a line on stderr says so.
    """
    try:
        from pyarrow import Table, parquet  # noqa: PLC0415  optional: the extra "eval"
    except ImportError:
        sys.stderr.write(f"{folder}: left out, since writing MMMU's parquet files needs pyarrow\n")
        return
    truths = {}
    for subject in _SUBJECTS:
        rows = [_row(subject, number, seed) for number in range(1, boards_for(count, len(_SUBJECTS)) + 1)]
        truths |= {
            row["id"]: {
                "question_type": "short-answer" if row["question_type"] == "open" else "multiple-choice",
                "ground_truth": row["answer"],
            }
            for row in rows
        }
        (folder / subject).mkdir(parents=True, exist_ok=True)
        parquet.write_table(Table.from_pylist(rows), folder / subject / "validation-00000-of-00001.parquet")
    write_json(folder / "answer_dict_val.json", truths)


def _row(subject: str, number: int, seed: int) -> dict[str, Any]:
    rng = stream(seed, "mmmu", subject, number)
    scene = random_scene(rng)
    image = board_bytes(scene, rng)
    question = ask(_KINDS[number % len(_KINDS)], scene, rng)
    choice = choose(question, rng)
    is_open = number % len(_KINDS) == 0
    return {
        "id": f"validation_{subject}_{number}",
        "question": f"<image 1> {question.text}",
        "options": "[]" if is_open else str(choice.options),
        "explanation": "",
        "image_1": {"bytes": image, "path": f"{subject}_{number}.png"},
        "image_2": None,
        "img_type": "['board']",
        "answer": question.answer if is_open else choice.letter,
        "topic_difficulty": question.grade,
        "question_type": "open" if is_open else "multiple-choice",
        "subfield": question.kind,
    }
