import json

import pytest

from llava.eval.benchmark import match_answers, read_answers
from llava.eval.benchmarks.pope import Pope, says_yes
from tests.llava.eval.conftest import GOLDEN, read_lines, write_lines

EXPECTED = json.loads((GOLDEN / "pope" / "expected.json").read_text())
NAMES = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1 score",
    "yes_ratio": "Yes ratio",
}


def test_every_split_scores_as_the_original(data_root):
    pope = Pope()
    questions = pope.references(data_root)
    rows = read_answers(data_root / "pope" / "answers" / "golden-model.jsonl")
    metrics = pope.score(questions, match_answers(pope, questions, rows[::-1]).texts)
    assert metrics["f1"] == pytest.approx(100 * EXPECTED["mean_f1"], abs=1e-6)
    for split, values in EXPECTED["per_category"].items():
        for ours, theirs in NAMES.items():
            assert metrics[f"{split}/{ours}"] == pytest.approx(100 * values[theirs], abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("No, there is not", False),
        ("There is no dog", False),
        ("Yes. No.", True),
        ("NO", True),
        ("nope", True),
        ("\nNo", True),
        ("", True),
    ],
)
def test_answers_are_read_as_the_original_reads_them(answer, expected):
    assert says_yes(answer) is expected


def test_a_split_without_any_yes_scores_zero_instead_of_failing(data_root):
    questions = Pope().questions(data_root)
    metrics = Pope().score(questions, ["no"] * len(questions))
    assert metrics["f1"] == metrics["random/precision"] == 0.0


def test_labels_in_another_order_are_refused(data_root):
    path = data_root / "pope" / "coco" / "coco_pope_random.json"
    write_lines(path, read_lines(path)[::-1])
    with pytest.raises(ValueError, match=r"label 1 is about .* both files must be in the same order"):
        Pope().questions(data_root)


def test_a_label_too_few_is_refused(data_root):
    path = data_root / "pope" / "coco" / "coco_pope_random.json"
    write_lines(path, read_lines(path)[1:])
    with pytest.raises(ValueError, match="4 labels for the 5 questions of split random"):
        Pope().questions(data_root)
