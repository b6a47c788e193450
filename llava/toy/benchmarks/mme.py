"""Files of MME about the small world: fourteen categories, two questions per image, yes and no."""

from pathlib import Path

from llava.toy.benchmarks.files import question_line, write_lines
from llava.toy.boards import draw_boards, stream
from llava.toy.questions import SUFFIX, ask_exist

_FLAT = (
    *("existence", "count", "position", "color", "OCR"),
    *("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
)
"""Categories whose images and answers lie in one folder."""
_NESTED = ("posters", "celebrity", "scene", "landmark", "artwork")
"""Categories with a folder for each."""
_REMINDER = " Please answer yes or no."


def write_mme(folder: Path, *, seed: int, count: int) -> None:
    """Images, the official answers and LLaVA's question file, in every category."""
    release = folder / "MME_Benchmark_release_version"
    categories = (*_FLAT, *_NESTED)
    per_category = max(1, count // (2 * len(categories)))
    rng = stream(seed, "mme questions")
    lines = []
    for category in categories:
        images, answers = ("images/", "questions_answers_YN/") if category in _NESTED else ("", "")
        (release / category / answers).mkdir(parents=True, exist_ok=True)
        name = f"{category}/{images}%04d.png"
        boards = draw_boards(release, seed=seed, part=f"mme {category}", count=per_category, name=name)
        for board in boards:
            asked = [ask_exist(board.scene, rng, is_present=is_present) for is_present in (True, False)]
            lines += [
                question_line(board.path, board.path, question, f"{question.text}{SUFFIX}", category)
                for question in asked
            ]
            path = release / category / answers / f"{Path(board.path).stem}.txt"
            path.write_text(
                "".join(f"{one.text}{_REMINDER}\t{one.answer.capitalize()}\n" for one in asked),
                encoding="utf-8",
            )
    write_lines(folder / "llava_mme.jsonl", lines)
