import json

import pytest

from llava.eval.benchmark import CHOICE_ANSWER, Answer, Question
from llava.eval.benchmarks.scienceqa import ScienceQa, chosen_letter
from llava.eval.reading import MissingDataError
from tests.llava.eval.benchmarks.choices import run_export, run_score
from tests.llava.eval.conftest import read_lines, write_lines
from tests.llava.eval.golden import FOLDER, unpack

ANSWERS = "scienceqa/answers/golden-model.jsonl"


@pytest.fixture
def golden(tmp_path):
    return tmp_path, unpack("scienceqa", tmp_path)


def test_scores_are_those_of_the_original_with_a_missing_answer_out_of_the_image_half(golden):
    root, expected = golden
    scores = run_score("scienceqa", root, root / ANSWERS, "--allow_missing")
    printed = "Total: 11, Correct: 4, Accuracy: {accuracy:.2f}%, IMG-Accuracy: {image_accuracy:.2f}%"
    assert printed.format(**scores["metrics"]) == expected["stdout"]
    assert scores["metrics"]["accuracy"] == pytest.approx(expected["output_result"]["acc"], abs=1e-6)
    assert (scores["protocol"], scores["num_missing"]) == ("scienceqa_test+allow_missing", 1)


def test_a_missing_answer_is_refused_unless_allowed(golden):
    root, _ = golden
    with pytest.raises(SystemExit, match=r"1 question\(s\) without an answer \(46\)"):
        run_score("scienceqa", root, root / ANSWERS)


def test_export_does_not_overwrite_the_answers(golden):
    root, _ = golden
    answers = (root / ANSWERS).rename(root / "model_output.jsonl")
    with pytest.raises(SystemExit, match=r"model_output\.jsonl: would overwrite the answers"):
        run_export("scienceqa", root, answers, root / "model_result.json")


def test_scores_do_not_depend_on_the_order_of_the_answers(golden):
    root, _ = golden
    before = run_score("scienceqa", root, root / ANSWERS, "--allow_missing")
    write_lines(root / ANSWERS, read_lines(root / ANSWERS)[::-1])
    assert run_score("scienceqa", root, root / ANSWERS, "--allow_missing") == before


def test_export_writes_both_files_of_the_original(golden):
    root, expected = golden
    output = run_export("scienceqa", root, root / ANSWERS, root / "model_result.json")
    assert json.loads(output.read_text()) == expected["output_result"]
    assert json.loads((root / "model_output.jsonl").read_text()) == expected["output_file"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("B. because", "B"),
        ("B.", "FAILED"),
        ("b", "FAILED"),
        ("F", "FAILED"),
        ("The answer is C.", "C"),
        ("The answer is C", "FAILED"),
        ("The answer is C\n", "FAILED"),
        ("The answer is Z.", "Z"),
        ("The answer is A. The answer is A.", "FAILED"),
        ("", "FAILED"),
    ],
)
def test_letters_are_read_as_the_original_reads_them(answer, letter):
    assert chosen_letter(answer) == letter


def test_a_letter_beyond_the_choices_is_wrong():
    question = Question(id="1", text="", image=None, gold={"choices": ["x", "y"], "answer": 1})
    assert ScienceQa().correctness(question, "C") == 0.0
    assert ScienceQa().correctness(question, "B") == 1.0


def test_without_any_image_question_the_image_accuracy_is_zero():
    question = Question(id="1", text="", image=None, gold={"choices": ["x", "y"], "answer": 1})
    answer = Answer("B", "no image", is_missing=False)
    assert ScienceQa().score([question], [answer]) == {"accuracy": 100.0, "image_accuracy": 0.0}


def with_question_file(root, records):
    problem = {"choices": ["x", "y"], "answer": 1}
    folder = root / "scienceqa"
    folder.mkdir()
    (folder / "llava_test_CQM-A.json").write_text(json.dumps(records))
    (folder / "problems.json").write_text(json.dumps(dict.fromkeys(("4", "5", "6"), problem)))
    return root


def test_prompts_are_those_of_the_original_driver(tmp_path):
    root = with_question_file(tmp_path, json.loads((FOLDER / "drivers" / "sqa.json").read_text()))
    questions = ScienceQa().questions(root)
    driver = json.loads((FOLDER / "drivers" / "expected.json").read_text())["science_single_pred"]
    shown = ["" if question.image is None else "<IMG>\n" for question in questions]
    rendered = [
        f"<BOS>{{SYSTEM}} USER: {mark}{question.text} ASSISTANT:"
        for mark, question in zip(shown, questions, strict=True)
    ]
    assert rendered == driver["prompts"]
    assert [question.stored_prompt for question in questions] == [row["prompt"] for row in driver["answers"]]
    assert questions[1].image == root / "scienceqa" / "images" / "test" / "wide.png"


def test_other_prompts_get_another_label():
    assert ScienceQa().protocol([], [f"q{CHOICE_ANSWER}"]) == "scienceqa_test"
    assert ScienceQa().protocol([], [f"q{CHOICE_ANSWER}", "q"]) == "scienceqa_test+other_prompt"


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "expected a list of at least one question"),
        ({"id": "4"}, "expected a list of at least one question"),
        ([{"id": "4", "conversations": []}], "question 1: expected id, conversations"),
        ([{"id": 4, "conversations": [{"value": "q"}]}], "question 1: expected id, conversations"),
        ([{"id": "4", "image": 3, "conversations": [{"value": "q"}]}], "question 1: expected id"),
        ([{"id": "9", "conversations": [{"value": "q"}]}], "id '9' is not in problems.json"),
    ],
)
def test_a_broken_question_file_is_refused_by_record(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        ScienceQa().questions(with_question_file(tmp_path, records))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("problems.json", {"4": {"choices": ["x"], "answer": "B"}}, "problem 4: expected a list of choices"),
        ("problems.json", [], "expected an object of problems by id"),
        ("pid_splits.json", {"test": []}, 'a list "test" of at least one id'),
        ("pid_splits.json", {"test": ["99"]}, "no problem 99 in problems.json"),
    ],
)
def test_broken_annotations_are_refused_by_name(golden, name, content, message):
    root, _ = golden
    (root / "scienceqa" / name).write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=message):
        run_score("scienceqa", root, root / ANSWERS)


def test_absent_data_is_told_apart_from_broken_data(tmp_path):
    with pytest.raises(MissingDataError, match=r"problems\.json: no such file"):
        ScienceQa().questions(tmp_path)
