import json

import pytest

from llava.eval.vqa_text import normalize_answer, normalize_official, official_accuracy, soft_accuracy
from tests.llava.eval.conftest import GOLDEN
from tests.llava.eval.golden import unpack

CASES = json.loads((GOLDEN / "vqa_normalization" / "expected.json").read_text())["cases"]


def test_every_golden_answer_is_normalised_as_the_evalai_processor_does():
    assert {case["raw"]: normalize_answer(case["raw"]) for case in CASES} == {
        c["raw"]: c["m4c"] for c in CASES
    }


def test_every_golden_answer_is_normalised_as_the_official_evaluator_does():
    wrong = [case for case in CASES if normalize_official(case["raw"]) != case["vqa_official"]]
    assert wrong == []


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_accuracy_grows_with_the_annotators_who_agree(matches, score):
    answers = ["Red."] * matches + [f"other {number}" for number in range(10 - matches)]
    assert soft_accuracy("the red", answers) == pytest.approx(score)


def test_soft_accuracy_needs_ten_annotators():
    with pytest.raises(ValueError, match="expected 10 reference answers, got 2"):
        soft_accuracy("a", ["a", "b"])


def test_at_most_32_full_stops_are_removed():
    assert normalize_answer("x." * 40).count(".") == 8


def test_every_golden_answer_scores_as_with_the_official_evaluator(tmp_path):
    official = unpack("vqa_soft_accuracy", tmp_path)["official"]["per_question"]
    annotations = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    given = {e["question_id"]: e["answer"] for e in json.loads((tmp_path / "results.json").read_text())}
    scores = {
        str(entry["question_id"]): 100
        * official_accuracy(given[entry["question_id"]], [answer["answer"] for answer in entry["answers"]])
        for entry in annotations
    }
    assert scores == pytest.approx(official)


def test_with_one_voice_the_official_evaluator_minds_capitals():
    assert official_accuracy("Red", ["red"] * 10) == 0.0
    assert official_accuracy("Red", ["red"] * 9 + ["blue"]) == 1.0
    with pytest.raises(ValueError, match="expected at least one reference answer"):
        official_accuracy("red", [])


def test_a_doubled_comma_is_no_comma_in_a_number():
    assert normalize_official("1,,000; x") == "1 000 x"
    assert normalize_official("1,000; x") == "1000 x"
