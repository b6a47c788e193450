"""Files of MM-Vet about the small world. There is no judge, so nothing grades the answers."""

from pathlib import Path

from llava.toy.benchmarks.files import ask_about_boards, question_line, write_json, write_lines

_CAPABILITIES = {
    "exist": ["rec"],
    "color": ["rec", "spat"],
    "digit": ["ocr", "spat"],
    "jump1": ["math", "ocr", "spat"],
}


def write_mmvet(folder: Path, *, seed: int, count: int) -> None:
    """Images, LLaVA's question file and the official mm-vet.json."""
    asked = ask_about_boards(
        folder / "images",
        seed=seed,
        part="mmvet",
        count=count,
        name="v1_%d.png",
        kinds=tuple(_CAPABILITIES),
        per_board=1,
    )
    lines, official = [], {}
    for number, (board, question) in enumerate(asked):
        lines.append(question_line(number, board.path, question, question.text, "conv"))
        official[f"v1_{number}"] = {
            "imagename": board.path,
            "imagesource": "the small world",
            "question": question.text,
            "answer": question.answer,
            "capability": _CAPABILITIES.get(question.kind, ["rec"]),
        }
    write_lines(folder / "llava-mm-vet.jsonl", lines)
    write_json(folder / "mm-vet.json", official)
