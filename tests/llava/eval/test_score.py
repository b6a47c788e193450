import json
import subprocess
import sys

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


def test_the_data_root_may_be_the_benchmarks_own_folder(data_root, tmp_path):
    answers = data_root / "pope" / "answers" / "golden-model.jsonl"
    usual = score(data_root, tmp_path / "usual.json", answers=answers)
    assert score(data_root / "pope", tmp_path / "own.json", answers=answers) == usual
    with pytest.raises(SystemExit, match=r"elsewhere/pope/llava_pope_test\.jsonl: no such file"):
        score(tmp_path / "elsewhere", tmp_path / "scores.json", answers=answers)


def test_an_unknown_benchmark_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(SystemExit, match="no benchmark 'pop'; there are gqa, vqav2, scienceqa, textvqa, "):
        main(["pop", "--answers", "x", "--output", str(tmp_path / "o.json")])


def test_an_unwritable_output_is_a_clear_error(data_root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="can't write"):
        score(data_root, tmp_path / "file" / "scores.json")


@pytest.mark.parametrize("program", ["score", "export"])
def test_the_command_line_ends_without_a_traceback(program, data_root, tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"question_id"')
    files = ["--answers", str(tmp_path / "answers.jsonl"), "--output", str(tmp_path / "out.json")]
    command = [sys.executable, "-m", f"llava.eval.{program}", "gqa", "--data_root", str(data_root), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"llava.eval.{program}: {tmp_path}/answers.jsonl:1: not valid JSON")
    assert len(done.stderr.splitlines()) == 1


def test_answers_of_another_benchmark_are_refused_even_where_some_may_be_missing(data_root, tmp_path):
    rows = [{"question_id": "v1_7", "prompt": "?", "text": "yes"}]
    write_lines(tmp_path / "answers.jsonl", rows)
    with pytest.raises(SystemExit, match="none of the 1 answers belongs to a question of pope"):
        score(data_root, tmp_path / "o.json", "--allow_missing", answers=tmp_path / "answers.jsonl")


def test_an_answers_file_that_isnt_there_is_a_clear_error(data_root, tmp_path):
    with pytest.raises(SystemExit, match=r"nowhere.jsonl: no such file; expected answers"):
        score(data_root, tmp_path / "o.json", answers=tmp_path / "nowhere.jsonl")
