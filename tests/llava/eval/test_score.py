import json

import pytest

from llava.eval.score import main
from tests.llava.eval.conftest import read_lines, write_lines


def score(data_root, output, *flags, answers=None):
    answers = answers or data_root / "pope" / "answers" / "golden-model.jsonl"
    words = [
        "pope",
        "--data-root",
        str(data_root),
        "--answers",
        str(answers),
        "--output",
        str(output),
        *flags,
    ]
    main(words)
    return json.loads(output.read_text())


def test_scoring_needs_no_model_and_writes_the_contract(data_root, tmp_path):
    scores = score(data_root, tmp_path / "new" / "scores.json")
    assert scores["benchmark"] == "pope"
    assert scores["protocol"] == "pope_mean_f1"
    assert scores["metrics"]["f1"] == pytest.approx(63.49206349206349)
    assert (scores["num_questions"], scores["num_missing"]) == (17, 0)


def test_a_missing_answer_is_refused_unless_the_label_may_say_so(data_root, tmp_path):
    answers = tmp_path / "short.jsonl"
    write_lines(answers, read_lines(data_root / "pope" / "answers" / "golden-model.jsonl")[1:])
    with pytest.raises(SystemExit, match=r"short.jsonl: 1 question\(s\) without an answer \(1\)"):
        score(data_root, tmp_path / "scores.json", answers=answers)
    scores = score(data_root, tmp_path / "scores.json", "--allow_missing", answers=answers)
    assert scores["protocol"] == "pope_mean_f1+allow_missing"
    assert scores["num_missing"] == 1


def test_an_unknown_benchmark_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(SystemExit, match="no benchmark 'pop'; there are gqa, pope, textvqa"):
        main(["pop", "--answers", "x", "--output", str(tmp_path / "o.json")])


def test_an_unwritable_output_is_a_clear_error(data_root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="can't write"):
        score(data_root, tmp_path / "file" / "scores.json")
