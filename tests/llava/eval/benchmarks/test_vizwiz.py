import json

import pytest

from llava.eval.benchmarks.vizwiz import SUFFIX, VizWiz
from llava.eval.export import main as export
from llava.eval.score import main as score
from tests.llava.eval.conftest import write_lines
from tests.llava.eval.golden import expected, unpack

ANSWERS = "vizwiz/answers/golden-model.jsonl"


@pytest.fixture
def root(tmp_path):
    unpack("vizwiz_conversion", tmp_path)
    return tmp_path


def words(root, answers):
    return [
        "vizwiz",
        "--data_root",
        str(root),
        "--answers",
        str(answers),
        "--output",
        str(root / "out.json"),
    ]


def write_val(root, answers):
    entry = {"image": "VizWiz_val_00000000.jpg", "question": "What is it?"}
    entry["answers"] = [{"answer": answer, "answer_confidence": "yes"} for answer in answers]
    (root / "vizwiz" / "val.json").write_text(json.dumps([entry]))


def test_the_submission_is_that_of_the_original_converter(root, capsys):
    export(words(root, root / ANSWERS))
    assert json.loads((root / "out.json").read_text()) == expected("vizwiz_conversion")["output"]
    assert capsys.readouterr().out.strip() == expected("vizwiz_conversion")["stdout_lines"][0]


def test_an_incomplete_submission_is_refused(root):
    lines = (root / ANSWERS).read_text().splitlines()
    (root / ANSWERS).write_text("\n".join(lines[1:]))
    with pytest.raises(SystemExit, match=r"1 of 5 questions have no answer \(4\); the server takes complete"):
        export(words(root, root / ANSWERS))


def test_the_hidden_labels_of_test_are_an_error_that_says_what_to_do(root):
    lines = (root / ANSWERS).read_text().splitlines()
    (root / ANSWERS).write_text("\n".join(lines[:-1]))
    with pytest.raises(SystemExit, match=r"labels of vizwiz's test aren't public.* EvalAI .challenge 2185"):
        score(words(root, root / ANSWERS))


@pytest.mark.parametrize(
    ("text", "accuracy"), [("The Red one.", 0.0), ("Red", 90.0), ("unanswerable", 100.0), ("blue", 60.0)]
)
def test_val_is_scored_by_the_official_accuracy(root, text, accuracy):
    write_val(root, ["red"] * 3 + ["unanswerable"] * 4 + ["blue"] * 2 + ["green"])
    row = {"question_id": "VizWiz_val_00000000.jpg", "prompt": "What is it?" + SUFFIX, "text": text}
    write_lines(root / "answers.jsonl", [row])
    score(words(root, root / "answers.jsonl"))
    scores = json.loads((root / "out.json").read_text())
    assert scores["protocol"] == "vizwiz-val"
    assert scores["metrics"]["accuracy"] == pytest.approx(accuracy)


def test_val_is_asked_where_there_is_nothing_else(root):
    write_val(root, ["red"] * 10)
    assert VizWiz().questions(root)[0].id == 0
    assert VizWiz("val").questions(root)[0].text == "What is it?" + SUFFIX
    (root / "vizwiz" / "llava_test.jsonl").unlink()
    question = VizWiz().questions(root)[0]
    assert question.image == root / "vizwiz" / "val" / "VizWiz_val_00000000.jpg"
    assert VizWiz().correctness(question, VizWiz().gold_text(question)) == 1.0


@pytest.mark.parametrize("question_id", [0, "0", "VizWiz_val_00000000.jpg"])
def test_answers_to_val_may_name_the_image_or_its_number(root, question_id):
    write_val(root, ["red"] * 10)
    (root / "vizwiz" / "llava_test.jsonl").unlink()
    write_lines(root / "answers.jsonl", [{"question_id": question_id, "prompt": "?", "text": "red"}])
    score(words(root, root / "answers.jsonl"))
    assert json.loads((root / "out.json").read_text())["metrics"]["accuracy"] == 100.0
    export(words(root, root / "answers.jsonl"))
    submission = [{"image": "VizWiz_val_00000000.jpg", "answer": "red"}]
    assert json.loads((root / "out.json").read_text()) == submission
