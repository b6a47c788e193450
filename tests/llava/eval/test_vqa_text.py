import json

import pytest

from llava.eval.vqa_text import normalize_answer, normalize_official, soft_accuracy
from tests.llava.eval.conftest import GOLDEN

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
