"""Boards and questions: answers are recomputed from the scene by other means than the code's own."""

import re

import numpy as np
import pytest

from llava.toy.questions import KINDS, ask, ask_exist, ask_text_only, describe, state_facts
from llava.toy.render import IMAGE_SIDE, render
from llava.toy.world import COLORS, COLUMNS, ROWS, patterned_scene, random_scene

PLACE = re.compile(r"row (\w+), column (\w)")


def answer_by_hand(text, scene):
    """Answer a question from its words alone."""
    cells = {
        (row, column): (int(scene.digits[i, j]), int(scene.colors[i, j]))
        for i, row in enumerate(ROWS)
        for j, column in enumerate(COLUMNS)
    }
    asked = [COLORS.index(word) for word in re.findall(r"\w+", text) if word in COLORS]
    counts = [sum(color == wanted for _, color in cells.values()) for wanted in asked]
    if text.startswith("Is there"):
        return "yes" if counts[0] else "no"
    if text.startswith("Are there more"):
        return "yes" if counts[0] > counts[1] else "no"
    if text.startswith("How many"):
        return str(counts[0])
    row, column = PLACE.search(text).groups()
    if text.startswith("What color"):
        return COLORS[cells[row, column][1]]
    for _ in range({"once": 1, "twice": 2}.get(text.split()[1], 0)):
        row = ROWS[cells[row, column][0]]
    return str(cells[row, column][0])


@pytest.mark.parametrize("kind", KINDS)
def test_answers_follow_from_the_scene(kind):
    rng = np.random.default_rng(5)
    answers = set()
    for _ in range(60):
        scene = random_scene(rng)
        question = ask(kind, scene, rng)
        assert question.answer == answer_by_hand(question.text, scene)
        answers.add(question.answer)
    assert len(answers) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_almost_every_board_allows_a_question_of_every_kind(kind):
    rng = np.random.default_rng(6)
    kinds = [ask(kind, random_scene(rng), rng).kind for _ in range(100)]
    assert kinds.count(kind) >= 70


@pytest.mark.parametrize("negatives", ["random", "popular", "adversarial"])
def test_colors_asked_for_are_there_or_not_as_wanted(negatives):
    rng = np.random.default_rng(7)
    for _ in range(30):
        scene = random_scene(rng)
        for is_present in (True, False):
            question = ask_exist(scene, rng, is_present=is_present, negatives=negatives)
            assert question.answer == ("yes" if is_present else "no") == answer_by_hand(question.text, scene)


def test_jumps_never_come_back_so_fewer_jumps_would_not_do():
    rng = np.random.default_rng(8)
    for _ in range(30):
        scene = random_scene(rng)
        question = ask("jump2", scene, rng)
        if question.kind != "jump2":
            continue
        row, column = PLACE.search(question.text).groups()
        first = ROWS.index(row)
        second = scene.digits[first, COLUMNS.index(column)]
        third = scene.digits[second, COLUMNS.index(column)]
        assert len({first, int(second), int(third)}) == 3


def test_a_caption_reads_out_what_the_cells_hold():
    rng = np.random.default_rng(9)
    scene = random_scene(rng)
    parts = re.findall(r"(\w+) ([P-W]) ((?:empty|\w+ \d))", describe(scene, rng, 64))
    assert len(set(parts)) == 64
    for row, column, words in parts:
        assert tuple(words.split()) == scene.words(ROWS.index(row), COLUMNS.index(column))


def test_facts_are_true():
    rng = np.random.default_rng(13)
    for _ in range(20):
        scene = random_scene(rng)
        facts = state_facts(
            scene, rng, 10, {"exist": 0.3, "compare": 0.1, "count": 0.1, "digit": 0.1, "jump": 0.4}
        )
        for color, word in re.findall(r"a (\w+) (yes|no)", facts):
            assert word == answer_by_hand(f"Is there a {color} digit in the image?", scene)
        for times, row, column, digit in re.findall(r"(once|twice) (\w+) ([P-W]) (\d)", facts):
            text = f"Jump {times} from row {row}, column {column}: which digit is there?"
            assert digit == answer_by_hand(text, scene)


@pytest.mark.parametrize(("pattern", "num_kinds"), [("uniform", 1), ("rows", 8), ("columns", 8)])
def test_patterned_boards_repeat_themselves(pattern, num_kinds):
    scene = patterned_scene(np.random.default_rng(14), pattern)
    digits = scene.digits if pattern == "columns" else scene.digits.T
    assert all(len(set(line[line >= 0])) <= 1 for line in digits.T)
    assert (
        len(
            {
                (digit, color)
                for digit, color in zip(scene.digits.flat, scene.colors.flat, strict=True)
                if digit >= 0
            }
        )
        <= num_kinds
    )


def test_text_only_answers_name_the_neighbour():
    rng = np.random.default_rng(10)
    for _ in range(50):
        question = ask_text_only(rng)
        names = next(names for names in (ROWS, COLUMNS, "01234567") if question.answer in names)
        known = next(word for word in re.findall(r"\w+", question.text) if word in names)
        step = 1 if re.search("above|left|before", question.text) else -1
        assert names.index(question.answer) == names.index(known) + step


def test_a_board_has_every_kind_of_color():
    rng = np.random.default_rng(11)
    for _ in range(50):
        scene = random_scene(rng)
        assert all(scene.count(color) >= 5 for color in scene.main)
        assert 1 <= scene.count(scene.rare) <= 4
        assert len(scene.absent) >= 2
        assert all(scene.count(color) == 0 for color in scene.absent)
        assert ((scene.digits < 0) == (scene.colors < 0)).all()


def test_images_show_digits_where_the_scene_has_them():
    rng = np.random.default_rng(12)
    scene = random_scene(rng)
    image = render(scene, rng)
    assert image.size == (IMAGE_SIDE, IMAGE_SIDE)
    assert image.mode == "RGB"
    cells = np.asarray(image).reshape(8, 16, 8, 16, 3).astype(int)
    contrast = cells.max(axis=(1, 3, 4)) - np.median(cells, axis=(1, 3)).mean(-1)
    assert contrast[scene.digits >= 0].min() > contrast[scene.digits < 0].max()
