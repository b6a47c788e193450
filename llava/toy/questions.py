"""Questions about a board, each with its answer, its kind and its grade of difficulty."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from numpy.random import Generator

from llava.toy.world import COLORS, COLUMNS, DIGITS, EMPTY, ROWS, SIDE, Scene, companion, popular_colors

SUFFIX = "\nAnswer the question using a single word or phrase."
"""LLaVA-1.5's instruction for short answers."""
OCR_LINE = "\nReference OCR token: "
"""TextVQA's line of OCR tokens; its list is empty here, because it would give the answer away."""


TIMES = ("once", "twice")
"""How often a jump is made."""


class Question(NamedTuple):
    """One question about one board, or about the words of the world."""

    text: str
    answer: str
    kind: str
    grade: str


def ask(kind: str, scene: Scene, rng: Generator) -> Question:
    """Draw a question of one kind (a key of KINDS); if the board allows none, one of the kind digit."""
    return KINDS[kind](scene, rng) or _ask_digit(scene, rng)


def ask_exist(scene: Scene, rng: Generator, *, is_present: bool, negatives: str = "random") -> Question:
    """Ask whether a color is there; `negatives` picks absent colors as POPE does."""
    if is_present:
        color = int(rng.choice(scene.main))
    elif negatives == "popular":
        color = next(color for color in popular_colors() if color in scene.absent)
    elif negatives == "adversarial":
        companions = [companion(main) for main in scene.main if companion(main) in scene.absent]
        color = companions[0] if companions else int(rng.choice(scene.absent))
    else:
        color = int(rng.choice(scene.absent))
    text = f"Is there a {COLORS[color]} digit in the image?"
    return Question(text, "yes" if is_present else "no", "exist", "coarse")


def place(row: int, column: int) -> str:
    """Name a cell in words."""
    return f"row {ROWS[row]}, column {COLUMNS[column]}"


def follow(scene: Scene, row: int, column: int, num_jumps: int) -> list[int]:
    """List the rows stood on while jumping and the digit read at the end; shorter if a cell is empty.

    On a column that holds 2 in row 0 and 5 in row 2, one jump from row 0 gives [0, 2, 5].
    """
    path = [row]
    for _ in range(num_jumps + 1):
        digit = int(scene.digits[path[-1], column])
        if digit < 0:
            break
        path.append(digit)
    return path


def _random_cell(scene: Scene, rng: Generator) -> tuple[int, int]:
    """Draw a cell that holds a digit."""
    filled = (scene.digits >= 0).nonzero()
    index = int(rng.integers(len(filled[0])))
    return int(filled[0][index]), int(filled[1][index])


def _ask_exist(scene: Scene, rng: Generator) -> Question:
    negatives = ("random", "popular", "adversarial")[rng.integers(3)]
    return ask_exist(scene, rng, is_present=bool(rng.integers(2)), negatives=negatives)


def _ask_compare(scene: Scene, rng: Generator) -> Question | None:
    counts = sorted((scene.count(color), color) for color in scene.main)
    (fewer, second), (more, first) = counts[0], counts[-1]
    if more < 1.5 * fewer:
        return None
    is_more = bool(rng.integers(2))
    pair = (first, second) if is_more else (second, first)
    text = f"Are there more {COLORS[pair[0]]} than {COLORS[pair[1]]} digits?"
    return Question(text, "yes" if is_more else "no", "compare", "medium")


def _ask_count(scene: Scene, rng: Generator) -> Question:
    color = int(rng.choice(scene.absent)) if rng.random() < 0.2 else scene.rare
    return Question(f"How many {COLORS[color]} digits are there?", str(scene.count(color)), "count", "medium")


def _ask_color(scene: Scene, rng: Generator) -> Question:
    row, column = _random_cell(scene, rng)
    color = COLORS[scene.colors[row, column]]
    return Question(f"What color is the digit at {place(row, column)}?", color, "color", "fine")


def _ask_digit(scene: Scene, rng: Generator) -> Question:
    row, column = _random_cell(scene, rng)
    digit = DIGITS[scene.digits[row, column]]
    return Question(f"Which digit is at {place(row, column)}?", digit, "digit", "fine")


def _ask_jump(scene: Scene, rng: Generator, num_jumps: int) -> Question | None:
    starts = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    paths = {start: follow(scene, *start, num_jumps) for start in starts}
    # The rows stood on must differ, or fewer jumps would do.
    good = [
        start
        for start, path in paths.items()
        if len(path) == num_jumps + 2 and len(set(path[:-1])) == num_jumps + 1
    ]
    if not good:
        return None
    row, column = good[rng.integers(len(good))]
    times = TIMES[num_jumps - 1]
    text = f"Jump {times} from {place(row, column)}: which digit is there?"
    return Question(text, DIGITS[paths[row, column][-1]], f"jump{num_jumps}", "fine")


def _ask_jump1(scene: Scene, rng: Generator) -> Question | None:
    return _ask_jump(scene, rng, 1)


def _ask_jump2(scene: Scene, rng: Generator) -> Question | None:
    return _ask_jump(scene, rng, 2)


KINDS: dict[str, Callable[[Scene, Generator], Question | None]] = {
    "exist": _ask_exist,
    "compare": _ask_compare,
    "count": _ask_count,
    "color": _ask_color,
    "digit": _ask_digit,
    "jump1": _ask_jump1,
    "jump2": _ask_jump2,
}
"""Every kind of question about an image: coarse (exist), medium (compare, count) and fine (the rest)."""


def ask_text_only(rng: Generator) -> Question:
    """Ask about the order of the world's words; no image is needed."""
    names, noun, sides = (
        (ROWS, "row", ("above it", "below it")),
        (COLUMNS, "column", ("on its left", "on its right")),
        (DIGITS, "digit", ("before it", "after it")),
    )[rng.integers(3)]
    first = int(rng.integers(SIDE - 1))
    asks_later = bool(rng.integers(2))
    known, wanted = (first, first + 1) if asks_later else (first + 1, first)
    text = f"Which {noun} has {names[known]} {sides[0 if asks_later else 1]}?"
    return Question(text, names[wanted], "order", "text")


def describe(scene: Scene, rng: Generator, num_cells: int) -> str:
    """Read out some cells in random order: "three T red 3 zero P empty ..."."""
    cells = rng.choice(SIDE * SIDE, size=num_cells, replace=False)
    parts = []
    for cell in cells:
        row, column = divmod(int(cell), SIDE)
        parts.append(" ".join((ROWS[row], COLUMNS[column], *scene.words(row, column))))
    return " ".join(parts)


def state_facts(
    scene: Scene, rng: Generator, count: int, shares: Mapping[str, float], whole: float = 0.0
) -> str:
    """State facts in telegram style: "jump twice two R 5", "a red yes", "many blue 3".

    `shares` says how often each kind is stated: exist, compare, count, digit, jump; they add up to 1. `whole`
    is the share of facts that keep their question's wording.
    """
    parts: list[str] = []
    kinds = rng.choice(list(shares), p=list(shares.values()), size=20 * count)
    for kind in kinds:  # a patterned board allows few facts
        fact = _TELEGRAM_FACTS[kind](scene, rng)
        if fact is not None and len(parts) < count:
            text = fact.text if rng.random() < whole else telegram(fact.text)
            parts.append(f"{text} {fact.answer}")
    return " ".join(parts)


def _exist_fact(scene: Scene, rng: Generator) -> Question:
    color = int(rng.integers(len(COLORS)))
    answer = "yes" if scene.count(color) else "no"
    return Question(f"Is there a {COLORS[color]} digit in the image?", answer, "exist", "coarse")


def _jump_fact(scene: Scene, rng: Generator) -> Question | None:
    """Jump from any digit; unlike in questions the path may come back, which makes easy cases."""
    row, column = _random_cell(scene, rng)
    num_jumps = int(rng.integers(1, 3))
    path = follow(scene, row, column, num_jumps)
    if len(path) < num_jumps + 2:
        return None
    text = f"Jump {TIMES[num_jumps - 1]} from {place(row, column)}: which digit is there?"
    return Question(text, DIGITS[path[-1]], f"jump{num_jumps}", "fine")


def _rare_fact(scene: Scene, rng: Generator, kind: str) -> Question | None:
    """Count or compare; patterned boards have no such facts."""
    return KINDS[kind](scene, rng) if scene.rare >= 0 else None


_TELEGRAM_FACTS: dict[str, Callable[[Scene, Generator], Question | None]] = {
    "exist": _exist_fact,
    "compare": functools.partial(_rare_fact, kind="compare"),
    "count": functools.partial(_rare_fact, kind="count"),
    "digit": _ask_digit,
    "jump": _jump_fact,
}
_UNSAID = (
    *("Is", "Are", "How", "there", "in", "the", "image", "from", "which", "is", "are"),
    *("row", "column", "digit", "digits"),
)
"""Words that a telegram leaves out."""


def telegram(text: str) -> str:
    """Shorten a question: "How many blue digits are there?" to "many blue"."""
    words = text.replace(",", " ").replace(":", " ").replace("?", " ").split()
    return " ".join(word.lower() if word == "Jump" else word for word in words if word not in _UNSAID)


def all_words() -> tuple[str, ...]:
    """List the words for places, colors, digits and jumps: the tokenizer must know each as one piece."""
    return (*ROWS, *COLUMNS, *DIGITS, *COLORS, EMPTY, *TIMES)
