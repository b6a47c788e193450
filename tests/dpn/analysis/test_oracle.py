"""An oracle run of known outcomes: regret, agreement and files, by hand."""

import json
import shutil

import pytest

from dpn.analysis.oracle import main
from dpn.analysis.outcomes import load_oracles

COSTS = {"1x1": 1.0, "2x2": 0.4}
# question -> kind, routes that answer it right, route of the router
QUESTIONS = {
    "a": ("easy", ("1x1", "2x2"), "2x2"),
    "b": ("easy", ("1x1", "2x2"), "1x1"),
    "c": ("hard", ("1x1",), "1x1"),
    "d": ("hard", ("1x1",), "2x2"),
    "e": ("hard", (), "2x2"),
}


def line(name, route, *, with_kind=True):
    kind, right, _ = QUESTIONS[name]
    more = {"kind": kind} if with_kind else {}
    score = float(route in right)
    flops = {"paper": COSTS[route], "full": (1 + COSTS[route]) / 2}
    return {
        "question_id": name,
        "prompt": "p",
        "score": score,
        "route": [route],
        "flops_ratio": flops,
        **more,
    }


def write(folder, benchmark, rows):
    target = folder / benchmark
    target.mkdir(parents=True)
    accuracy = 100 * sum(row["score"] for row in rows) / len(rows)
    scores = {"headline": "accuracy", "metrics": {"accuracy": accuracy}, "protocol": benchmark}
    (target / "scores.json").write_text(json.dumps(scores))
    (target / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def oracle_run(tmp_path):
    def make(benchmarks=("gqa",), **options):
        for benchmark in benchmarks:
            write(
                tmp_path / "router",
                benchmark,
                [line(name, QUESTIONS[name][2], **options) for name in QUESTIONS],
            )
            for route in COSTS:
                write(tmp_path / route, benchmark, [line(name, route, **options) for name in QUESTIONS])
        return tmp_path

    return make


def test_the_router_is_held_against_the_frontier(oracle_run):
    (found,) = load_oracles(oracle_run(), "paper")
    # router: costs 40, 100, 100, 40, 40; right on a, b, c
    assert found.at_router == pytest.approx((64.0, 60.0))
    # oracle: all on 2x2 (40 %, 2 of 5), then c and d on 1x1: +12 each, +20 points each
    assert found.best.curve().tolist() == [[40.0, 40.0], [52.0, 60.0], [64.0, 80.0]]
    regret = found.regret(samples=50, seed=0)
    assert (regret.accuracy, regret.cost) == pytest.approx((20.0, 12.0))
    assert regret.accuracy_interval[0] <= 20 <= regret.accuracy_interval[1]
    assert regret.cost_interval[0] <= 12 <= regret.cost_interval[1]


def test_one_route_per_kind_pays_for_all_questions_of_the_kind(oracle_run):
    (found,) = load_oracles(oracle_run(), "paper")
    # hard questions on 1x1: 3 x 60 more of 5, two more of them right
    assert found.by_kind.curve().tolist() == [[40.0, 40.0], [76.0, 80.0]]
    assert found.constant.curve().tolist() == [[40.0, 40.0], [100.0, 80.0]]


def test_of_four_solvable_questions_three_are_solved_and_two_at_least_cost(oracle_run):
    (found,) = load_oracles(oracle_run(), "paper")
    assert found.agreement() == (75.0, 50.0)


def test_without_kinds_there_is_no_oracle_by_kind(oracle_run):
    (found,) = load_oracles(oracle_run(with_kind=False), "paper")
    assert found.by_kind is None


def test_full_counting_changes_costs_only(oracle_run):
    (found,) = load_oracles(oracle_run(), "full")
    assert found.at_router == pytest.approx((82.0, 60.0))


def test_several_benchmarks_are_also_taken_together(oracle_run):
    found = load_oracles(oracle_run(("gqa", "pope")), "paper")
    assert [(one.name, len(one.cost)) for one in found] == [("gqa", 5), ("pope", 5), ("all", 10)]
    assert found[2].best.curve()[-1].tolist() == [64.0, 80.0]


def test_questions_without_a_route_are_left_out(oracle_run):
    folder = oracle_run()
    for path in folder.glob("*/gqa/answers.jsonl"):
        rows = [json.loads(text) for text in path.read_text().splitlines()]
        rows[4]["route"] = []
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = load_oracles(folder, "paper")
    assert len(found.cost) == 4


def test_everything_is_written_and_json_is_json(oracle_run, tmp_path, capsys):
    folder = oracle_run(("gqa", "pope"))
    main([str(folder), "--output", str(tmp_path / "out"), "--samples", "20"])
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "oracle.md").read_text().startswith(printed.split("\nwrote")[0])
    data = json.loads((tmp_path / "out" / "oracle.json").read_text())
    assert data["benchmarks"][0]["regret"]["accuracy"] == pytest.approx(20.0)
    assert data["benchmarks"][0]["constant"]["cost_at_router_accuracy"] == pytest.approx(70.0)
    assert (tmp_path / "out" / "oracle.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "router"), r"router: no <benchmark>/scores.json"),
        (lambda folder: [shutil.rmtree(folder / name) for name in COSTS], "no folder of a forced route"),
        (lambda folder: shutil.rmtree(folder / "1x1"), "the router took 1x1, which wasn't forced"),
        (lambda folder: write(folder / "1x1", "pope", [line("a", "1x1")]), "let llava.eval.oracle finish"),
        (
            lambda folder: (folder / "1x1/gqa/answers.jsonl").write_text(json.dumps(line("a", "1x1")) + "\n"),
            "route 1x1 and the router answered different questions",
        ),
    ],
)
def test_a_run_that_is_not_whole_is_refused(oracle_run, tmp_path, damage, message):
    damage(oracle_run())
    with pytest.raises(SystemExit, match=message):
        main([str(tmp_path), "--output", str(tmp_path / "out")])
