"""Answers belong to questions by identity: their order doesn't matter, gaps and doubles are told."""

import json
from typing import NamedTuple

import pytest

from llava.eval.score import main
from tests.llava.eval.conftest import read_lines, write_lines
from tests.llava.eval.golden import unpack


class Case(NamedTuple):
    """Where the golden answers of a benchmark lie, and below which folder its inputs belong."""

    answers: str
    folder: str = "."


CASES = {
    "gqa": Case("gqa/answers/llava_gqa_testdev_balanced/golden-model/merge.jsonl"),
    "pope": Case("pope/answers/golden-model.jsonl"),
    "textvqa": Case("textvqa/answers/golden-model.jsonl", folder="textvqa"),
    "mmvet": Case("mm-vet/answers/golden-model.jsonl"),
    "mme": Case("MME/answers/golden-model.jsonl"),
    "seed": Case("seed_bench/answers/golden-model/merge.jsonl"),
    "scienceqa": Case("scienceqa/answers/golden-model.jsonl"),
}


@pytest.fixture(params=CASES)
def golden(request, tmp_path):
    """A benchmark's name, its data, and one answer to each of its questions that the golden file answers."""
    case = CASES[request.param]
    unpack(request.param, tmp_path / case.folder)
    rows = read_lines(tmp_path / case.answers)
    once = {(row["question_id"], row["prompt"]): row for row in rows}
    return request.param, tmp_path / case.answers, tmp_path, list(once.values())


def score(golden, rows, *flags):
    name, answers, root, _ = golden
    write_lines(answers, rows)
    main(
        [
            name,
            "--data_root",
            str(root),
            "--answers",
            str(answers),
            "--output",
            str(root / "out.json"),
            *flags,
        ]
    )
    return json.loads((root / "out.json").read_text())


def test_the_order_of_answers_changes_nothing(golden, capsys):
    rows = golden[3]
    assert score(golden, rows, "--allow_missing") == score(golden, rows[::-1], "--allow_missing")


def test_a_missing_answer_is_told_and_shifts_no_other(golden, capsys):
    rows = golden[3]
    before = score(golden, rows, "--allow_missing")
    with pytest.raises(SystemExit, match=r"question\(s\) without an answer .*--allow_missing"):
        score(golden, rows[1:])
    after = score(golden, rows[1:], "--allow_missing")
    assert after["num_missing"] == before["num_missing"] + 1
    assert after["protocol"].endswith("+allow_missing")
    emptied = score(golden, [rows[0] | {"text": "?"}, *rows[1:]], "--allow_missing")
    assert emptied["num_missing"] == before["num_missing"]


def test_an_answer_given_twice_is_told(golden, capsys):
    rows = golden[3]
    with pytest.raises(SystemExit, match=r"question\(s\) answered twice or more"):
        score(golden, [*rows, rows[0]])
    assert score(golden, [*rows, rows[0]], "--allow_missing")["num_duplicate"] == 1


def test_a_file_cut_short_is_refused_with_its_last_line(golden, capsys):
    name, answers, root, rows = golden
    write_lines(answers, rows)
    answers.write_text(answers.read_text()[:-9])
    with pytest.raises(SystemExit, match=f"{answers.name}:{len(rows)}: not valid JSON"):
        main([name, "--data_root", str(root), "--answers", str(answers), "--output", str(root / "out.json")])
