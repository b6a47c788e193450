"""A benchmark beyond the table is one file and one row: asked, scored and exported by the same code."""

import json
from pathlib import Path

import pytest

from llava.eval.benchmarks import BENCHMARKS
from llava.eval.export import main as export
from llava.eval.ranks import Ranks
from llava.eval.report import build_scores
from llava.eval.runner import answer_all
from llava.eval.score import main as score
from tests.llava.eval.benchmarks import chartqa
from tests.llava.eval.conftest import draw, read_lines

HUMAN = [
    {"imgname": "1.png", "query": "How many bars are there?", "label": "4"},
    {"imgname": "1.png", "query": "Is red the longest?", "label": "Yes"},
]
AUGMENTED = [{"imgname": "2.png", "query": "What is the share of coal?", "label": "20.5%"}]
PAGE = Path(__file__).parents[3] / "docs" / "add_a_benchmark.md"


@pytest.fixture
def root(data_root, monkeypatch):
    """A data root with a small ChartQA, and the row in the table."""
    monkeypatch.setitem(BENCHMARKS, "chartqa", chartqa.ChartQa())
    folder = data_root / "chartqa"
    for name in ("1.png", "2.png"):
        draw(folder / "png" / name)
    (folder / "test_human.json").write_text(json.dumps(HUMAN))
    (folder / "test_augmented.json").write_text(json.dumps(AUGMENTED))
    return data_root


def test_the_runner_asks_and_scores_it(root, make_plan, session):
    plan = make_plan("chartqa", batch_size=2)
    answer_all(plan, session, Ranks())
    rows = plan.files.merge(plan.benchmark, plan.questions)
    scores = build_scores(plan, session, rows, "")
    assert [row["question_id"] for row in rows] == ["human_1", "human_2", "augmented_1"]
    assert scores["protocol"] == "chartqa_test_relaxed"
    right = [row["text"] == "Yes" and row["gold"] == "Yes" for row in rows]
    assert scores["metrics"]["accuracy"] == pytest.approx(100 * sum(right) / 3)
    assert scores["metrics"]["augmented"] == 0.0


def test_the_command_lines_know_it(root, tmp_path):
    answers = {"human_1": "4", "human_2": "no", "augmented_1": "21"}
    lines = [{"question_id": key, "prompt": "?", "text": text} for key, text in answers.items()]
    (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["chartqa", "--data_root", str(root), "--answers", str(tmp_path / "answers.jsonl")]
    score([*words, "--output", str(tmp_path / "scores.json")])
    metrics = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    assert metrics == pytest.approx({"accuracy": 200 / 3, "human": 50.0, "augmented": 100.0})
    export([*words, "--output", str(tmp_path / "submission.json")])
    assert json.loads((tmp_path / "submission.json").read_text()) == answers
    assert read_lines(tmp_path / "answers.jsonl") == lines


def test_the_page_on_adding_a_benchmark_shows_this_very_file():
    assert Path(chartqa.__file__).read_text() in PAGE.read_text()
