import json

import pytest

from llava.eval.benchmark import match_answers
from llava.eval.benchmarks.gqa import Gqa
from llava.eval.export import main as export
from llava.eval.reading import read_answers
from tests.llava.eval.conftest import SUFFIX, write_lines
from tests.llava.eval.golden import expected

EXPECTED = expected("gqa")
ANSWERS = "gqa/answers/llava_gqa_testdev_balanced/golden-model/merge.jsonl"
SECTIONS = {"structural": "structural", "semantic": "semantic", "steps": "steps", "words": "words"}


def golden_metrics(root):
    gqa = Gqa()
    questions = gqa.references(root)
    return gqa.score(questions, match_answers(gqa, questions, read_answers(root / ANSWERS).rows).answers)


def test_the_official_scores_are_reproduced(data_root):
    metrics = golden_metrics(data_root)
    names = {"accuracy": "Accuracy", "binary": "Binary", "open": "Open", "distribution": "Distribution"}
    for ours, theirs in names.items():
        assert round(metrics[ours], 2) == EXPECTED["metrics"][theirs]


def test_every_type_has_the_official_accuracy(data_root):
    metrics = golden_metrics(data_root)
    section, compared = "", 0
    for line in EXPECTED["report_lines"][6:]:
        if line.startswith("Accuracy / "):
            section = line.split()[2]
        elif line:
            name, value = line.split("%")[0].strip().split(": ")
            assert f"{metrics[f'{SECTIONS[section]}/{name}']:.2f}" == value
            compared += 1
    assert compared == 16


def test_the_exported_predictions_are_those_of_the_converter(data_root, tmp_path):
    words = ["gqa", "--data_root", str(data_root), "--answers", str(data_root / ANSWERS)]
    export([*words, "--output", str(tmp_path / "predictions.json")])
    assert json.loads((tmp_path / "predictions.json").read_text()) == EXPECTED["predictions"]


def test_the_official_file_alone_gives_the_same_prompts(data_root):
    question = Gqa().questions(data_root)[0]
    assert question.text == "Is it overcast?" + SUFFIX
    assert question.image == data_root / "gqa" / "images" / "n900.jpg"


def test_the_question_file_sets_order_and_carries_grades(data_root):
    official = Gqa().questions(data_root)
    lines = [
        {"question_id": q.id, "image": q.image.name, "text": q.text, "grade": "fine"} for q in official[::-1]
    ]
    write_lines(data_root / "gqa" / "llava_gqa_testdev_balanced.jsonl", lines)
    questions = Gqa().questions(data_root)
    assert [q.id for q in questions] == [q.id for q in official[::-1]]
    assert questions[0].extra == {"grade": "fine"}


def test_question_files_of_two_releases_are_refused(data_root):
    question = Gqa().questions(data_root)[0]
    line = {"question_id": question.id, "image": question.image.name, "text": question.text}
    write_lines(data_root / "gqa" / "llava_gqa_testdev_balanced.jsonl", [line])
    with pytest.raises(ValueError, match="questions are missing although they are in"):
        Gqa().questions(data_root)
