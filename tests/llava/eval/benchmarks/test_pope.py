import pytest

from llava.eval.benchmark import Answer, match_answers
from llava.eval.benchmarks.pope import Pope, says_yes
from llava.eval.reading import read_answers
from tests.llava.eval.conftest import read_lines, write_lines
from tests.llava.eval.golden import expected

EXPECTED = expected("pope")
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
    rows = read_answers(data_root / "pope" / "answers" / "golden-model.jsonl").rows
    metrics = pope.score(questions, match_answers(pope, questions, rows[::-1]).answers)
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
    metrics = Pope().score(questions, [Answer("no", is_missing=False)] * len(questions))
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


def test_a_missing_answer_is_wrong_whatever_is_in_the_image(data_root):
    questions = Pope().questions(data_root)
    metrics = Pope().score(questions, [Answer()] * len(questions))
    assert metrics["accuracy"] == metrics["f1"] == 0.0


def test_the_label_says_of_which_splits_the_mean_is(data_root):
    questions = Pope().questions(data_root)
    assert Pope().protocol(questions, []) == "pope_mean_f1"
    some = [question for question in questions if question.category != "random"]
    assert Pope().protocol(some, []) == "pope_f1_adversarial_popular"
