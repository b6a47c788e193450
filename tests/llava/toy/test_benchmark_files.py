"""The small world's files of all eleven benchmarks are read by the code that reads the real ones."""

import shutil
from collections import Counter

import pytest

from llava.eval.benchmark import Answer, NotScoredError
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.inputs import open_image
from llava.toy.benchmarks import QUICKSTART, SMALL
from llava.toy.benchmarks.files import choose
from llava.toy.boards import stream
from llava.toy.questions import Question

BEST = {"mme": 2000.0}
"""What perfect answers score where that isn't 100."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    for name, write in (QUICKSTART | SMALL).items():
        write(folder / name, seed=0, count=12)
    return folder


def right(benchmark, question):
    gold = benchmark.gold_text(question)
    return Answer(gold, question.stored_prompt, is_missing=False, row={})


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_question_has_a_readable_image_or_none(root, name):
    questions = BENCHMARKS[name].questions(root)
    assert len(questions) >= 10  # MMBench asks whole circles
    for question in questions:
        assert question.text
        if question.image is not None:
            assert open_image(question.image).size == (128, 128)


@pytest.mark.parametrize("name", sorted(set(BENCHMARKS) - {"mmvet"}))
def test_the_right_answers_score_best(root, name):
    benchmark = BENCHMARKS[name]
    questions = benchmark.questions(root)
    answers = [right(benchmark, question) for question in questions]
    assert benchmark.score(questions, answers)[benchmark.headline] == pytest.approx(BEST.get(name, 100.0))
    assert all(benchmark.correctness(q, a.text) == 1 for q, a in zip(questions, answers, strict=True))


def test_nobody_grades_the_small_worlds_mmvet(root):
    questions = BENCHMARKS["mmvet"].questions(root)
    with pytest.raises(NotScoredError):
        BENCHMARKS["mmvet"].score(questions, [Answer() for _ in questions])


def test_scienceqa_has_questions_without_an_image(root):
    questions = BENCHMARKS["scienceqa"].questions(root)
    assert Counter(question.image is None for question in questions) == {True: 6, False: 6}


def test_mmbench_asks_every_question_under_every_rotation(root):
    questions = BENCHMARKS["mmbench"].questions(root)
    by_circle = {}
    for question in questions:
        by_circle.setdefault(question.id % 1_000_000, []).append(question.extra["options"])
    for rotations in by_circle.values():
        assert len(rotations) == len(rotations[0])
        assert {tuple(options) for options in rotations} == {
            (*rotations[0][turn:], *rotations[0][:turn]) for turn in range(len(rotations))
        }


@pytest.mark.parametrize(("answer", "count"), [("yes", 2), ("red", 4), ("5", 4), ("three", 4)])
def test_options_are_different_words_of_one_kind(answer, count):
    choice = choose(Question("?", answer, "kind", "fine"), stream(0, "test"))
    assert len(set(choice.options)) == count
    assert choice.options["ABCD".index(choice.letter)] == answer


def test_without_pyarrow_only_mmmu_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    SMALL["MMMU"](tmp_path / "MMMU", seed=0, count=3)
    assert not (tmp_path / "MMMU").exists()
    assert "left out, since writing MMMU's parquet files needs pyarrow" in capsys.readouterr().err
    shutil.rmtree(tmp_path)
