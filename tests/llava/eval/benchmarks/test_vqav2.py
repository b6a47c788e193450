import json

import pytest

from llava.eval.benchmark import NotScoredError
from llava.eval.benchmarks.vqav2 import Vqav2
from llava.eval.export import main as export
from llava.eval.score import main as score
from tests.llava.eval.conftest import SUFFIX, write_lines
from tests.llava.eval.golden import expected, unpack

MERGED = "vqav2/answers/llava_vqav2_mscoco_test-dev2015/golden-model/merge.jsonl"


@pytest.fixture
def test_dev(tmp_path):
    unpack("vqav2_conversion", tmp_path)
    return tmp_path


@pytest.fixture
def val(tmp_path):
    """The golden annotations under their official names; results.json holds raw answers."""
    folder = tmp_path / "vqav2"
    unpack("vqa_soft_accuracy", folder)
    (folder / "annotations.json").rename(folder / "v2_mscoco_val2014_annotations.json")
    (folder / "questions.json").rename(folder / "v2_OpenEnded_mscoco_val2014_questions.json")
    return tmp_path


def words(root, answers):
    return [
        "vqav2",
        "--data_root",
        str(root),
        "--answers",
        str(answers),
        "--output",
        str(root / "out.json"),
    ]


def test_the_submission_is_that_of_the_original_converter(test_dev):
    export(words(test_dev, test_dev / MERGED))
    assert json.loads((test_dev / "out.json").read_text()) == expected("vqav2_conversion")["output"]


def test_a_submission_is_scored_as_the_official_evaluator_scores_it(val):
    score(words(val, val / "vqav2" / "results.json"))
    scores = json.loads((val / "out.json").read_text())
    official = expected("vqa_soft_accuracy")["official"]["accuracy"]
    assert scores["protocol"] == "vqav2-val"
    assert round(scores["metrics"]["accuracy"], 2) == official["overall"]
    for answer_type, value in official["perAnswerType"].items():
        assert round(scores["metrics"][f"answer_type/{answer_type}"], 2) == value


def test_a_part_of_val_may_have_short_names_and_lie_anywhere(tmp_path):
    unpack("vqa_soft_accuracy", tmp_path)
    score(words(tmp_path, tmp_path / "results.json"))
    scores = json.loads((tmp_path / "out.json").read_text())
    official = expected("vqa_soft_accuracy")["official"]["accuracy"]
    assert round(scores["metrics"]["accuracy"], 2) == official["overall"]


def test_answers_are_normalised_first_as_in_a_submission(val):
    given = json.loads((val / "vqav2" / "results.json").read_text())
    rows = [{"question_id": e["question_id"], "prompt": "?", "text": e["answer"]} for e in given]
    write_lines(val / "answers.jsonl", rows)
    score(words(val, val / "answers.jsonl"))
    from_answers = json.loads((val / "out.json").read_text())["metrics"]
    export(words(val, val / "answers.jsonl"))
    submission = json.loads((val / "out.json").read_text())
    assert submission[0] == {"question_id": 100000, "answer": "red"}
    (val / "submission.json").write_text(json.dumps(submission))
    score(words(val, val / "submission.json"))
    assert json.loads((val / "out.json").read_text())["metrics"] == from_answers
    assert from_answers["accuracy"] > expected("vqa_soft_accuracy")["official"]["accuracy"]["overall"]


def test_the_hidden_labels_of_test_dev_are_an_error_that_says_what_to_do(test_dev):
    rows = [{"question_id": i, "prompt": "?", "text": "a"} for i in (1001, 2001, 2002, 3001)]
    write_lines(test_dev / "answers.jsonl", rows)
    with pytest.raises(
        SystemExit, match=r"labels of vqav2's test-dev aren't public: .* EvalAI .challenge 830"
    ):
        score(words(test_dev, test_dev / "answers.jsonl"))
    questions = Vqav2().questions(test_dev)
    assert Vqav2().protocol(questions, []) == "vqav2-test-dev"
    assert Vqav2().correctness(questions[0], "2") is None
    with pytest.raises(NotScoredError):
        Vqav2().score(questions, [])


def test_with_both_splits_the_answers_decide(test_dev, val):
    assert val == test_dev
    assert Vqav2().questions(val)[0].id == 1001
    rows = Vqav2().read_answers(val / "vqav2" / "results.json")
    assert Vqav2().references(val, rows)[0].id == 100000
    assert Vqav2("val").questions(val)[0].text == "Q0" + SUFFIX
    assert Vqav2("val").questions(val)[0].image.name == "COCO_val2014_000000000500.jpg"
    assert Vqav2().of_split("test-dev").questions(val)[0].id == 1001
    with pytest.raises(ValueError, match="vqav2 has no split 'train'; there are test-dev and val"):
        Vqav2().of_split("train")


def test_exporting_test_dev_needs_the_ids_of_all_test_questions(test_dev):
    (test_dev / "vqav2" / "llava_vqav2_mscoco_test2015.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"test2015.jsonl: no such file; expected the ids of all test2015"):
        export(words(test_dev, test_dev / MERGED))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("v2_mscoco_val2014_annotations.json", [], 'expected an object with a list "annotations"'),
        (
            "v2_mscoco_val2014_annotations.json",
            {"annotations": [7]},
            "entry 1 is 7; expected an object with question_id",
        ),
        (
            "v2_mscoco_val2014_annotations.json",
            {"annotations": [{"question_id": 1, "image_id": 2, "answers": ["red"]}]},
            "entry 1: answers must be a list of",
        ),
        (
            "v2_mscoco_val2014_annotations.json",
            {"annotations": [{"question_id": 1, "image_id": 2, "answers": [{"answer": 3}]}]},
            "entry 1: every answer must be a string",
        ),
        ("v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [{}]}, "entry 1 has no question"),
        (
            "v2_OpenEnded_mscoco_val2014_questions.json",
            {"questions": [{"question_id": 5, "question": "Q"}]},
            "no question 100000, which v2_mscoco_val2014_annotations.json has",
        ),
        ("results.json", [], "no answers in it"),
        ("results.json", [{"question_id": 5}], "entry 1 has no question_id and answer"),
    ],
)
def test_a_broken_file_is_refused_with_what_is_wrong(val, file, content, message):
    (val / "vqav2" / file).write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=f"{file}.*{message}"):
        score(words(val, val / "vqav2" / "results.json"))
