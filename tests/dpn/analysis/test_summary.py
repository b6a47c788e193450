import json

import pytest

from dpn.analysis.summary import main

ROUTES = {
    "coarse": [("2x2", "2x2", "2x2")],
    "medium": [("1x2", "2x2", "2x2"), ("2x2", "2x2", "1x1")],
    "fine": [("1x1", "2x2", "2x2")],
}
STATIC = {grade: [("2x2", "2x2", "2x2")] for grade in ROUTES}


@pytest.fixture
def five_runs(make_run):
    return [
        f"LLaVA={make_run('dense', accuracy=0.86)}",
        f"DPN paper={make_run('paper', accuracy=0.80, routes=STATIC, seconds=0.006)}",
        f"DPN policy={make_run('policy', accuracy=0.85, routes=ROUTES, seconds=0.007)}",
        f"static 2x2={make_run('static', accuracy=0.78, routes=STATIC, eval_choice='static')}",
        f"random={make_run('random', accuracy=0.81, routes=ROUTES, eval_choice='random')}",
    ]


def test_everything_is_written(five_runs, data_root, tmp_path, capsys):
    output = tmp_path / "report"
    main([*five_runs, "--output", str(output), "--data_root", str(data_root)])
    names = {path.name for path in output.iterdir()}
    assert names == {"results.json", "table.md", "tradeoff.png", "routes.png", "examples.png"}
    assert "wrote" in capsys.readouterr().out


def test_the_table_has_a_row_per_run_and_the_protocol_in_every_column(five_runs, tmp_path):
    main([*five_runs, "--output", str(tmp_path / "report")])
    lines = (tmp_path / "report" / "table.md").read_text().splitlines()
    header = lines[0]
    for label in (
        "gqa (gqa_testdev_balanced)",
        "pope (pope_mean_f1)",
        "textvqa (textvqa+ocr)",
        "coarse",
        "fine",
    ):
        assert label in header
    assert [line.split(" | ")[0].strip("| ") for line in lines[2:7]] == [
        "LLaVA",
        "DPN paper",
        "DPN policy",
        "static 2x2",
        "random",
    ]
    assert all(line.count("|") == header.count("|") for line in lines[1:7])


def test_results_hold_cost_by_grade_and_time_relative_to_dense(five_runs, tmp_path):
    main([*five_runs, "--output", str(tmp_path / "report")])
    summary = json.loads((tmp_path / "report" / "results.json").read_text())
    policy = summary["runs"][2]
    assert policy["seconds_ratio"] == pytest.approx(0.7)
    assert policy["by_grade"]["fine"]["visual_tokens"] > policy["by_grade"]["coarse"]["visual_tokens"]
    assert policy["route_shares"][0]["medium"] == {"1x2": 0.5, "2x2": 0.5}
    assert [run["kind"] for run in summary["runs"]] == ["dense", "router", "router", "control", "control"]


def test_what_is_not_drawn_is_said(make_run, tmp_path, capsys):
    main([str(make_run("dense")), "--output", str(tmp_path / "report")])
    printed = capsys.readouterr().out
    assert "no routes.png: no run has a router" in printed
    assert "no examples.png" in printed


def test_two_protocols_in_one_column_are_refused(make_run, tmp_path):
    runs = [str(make_run("a")), str(make_run("b", protocol="textvqa-noocr"))]
    with pytest.raises(SystemExit, match="scores of different protocols don't belong in one column"):
        main([*runs, "--output", str(tmp_path / "report")])


def test_times_of_different_batch_sizes_are_not_compared(make_run, tmp_path):
    runs = [str(make_run("a")), str(make_run("b", batch_size=1))]
    main([*runs, "--output", str(tmp_path / "report")])
    summary = json.loads((tmp_path / "report" / "results.json").read_text())
    assert [run["seconds_ratio"] for run in summary["runs"]] == [1.0, None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], r"nowhere: no <benchmark>/scores.json"),
        (["{a}", "{a}"], "two runs are called 'a'"),
        (["{a}", "--reference", "b"], "no run is called 'b'; there are a"),
    ],
)
def test_a_wrong_command_line_is_a_clear_error(make_run, tmp_path, words, message):
    folder = str(make_run("a"))
    with pytest.raises(SystemExit, match=message):
        main([*(word.format(a=folder) for word in words), "--output", str(tmp_path / "report")])


def test_runs_on_different_benchmarks_are_refused(make_run, tmp_path):
    a, b = make_run("a"), make_run("b")
    (b / "pope" / "scores.json").unlink()
    with pytest.raises(SystemExit, match="evaluate every run on the same benchmarks"):
        main([str(a), str(b), "--output", str(tmp_path / "report")])


def test_examples_need_the_images_of_the_run(five_runs, tmp_path):
    with pytest.raises(SystemExit, match=r"no such image; give the --data_root"):
        main([*five_runs, "--output", str(tmp_path / "report"), "--data_root", str(tmp_path)])


def rewrite(run, folder, **changes):
    path = run / folder / "scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_benchmark_without_a_score_is_left_out_and_said_so(make_run, tmp_path, capsys):
    run = make_run("a")
    rewrite(run, "pope", metrics={}, not_scored="ask the judge")
    main([str(run), "--output", str(tmp_path / "report")])
    summary = json.loads((tmp_path / "report" / "results.json").read_text())
    assert list(summary["protocols"]) == ["gqa", "textvqa"]
    assert "pope/scores.json: left out, not scored: ask the judge" in capsys.readouterr().err


def test_a_run_without_any_score_is_refused(make_run, tmp_path):
    run = make_run("a", not_scored="ask the judge")
    with pytest.raises(SystemExit, match="none of its 3 benchmarks is scored"):
        main([str(run), "--output", str(tmp_path / "report")])


def test_points_count_a_twentieth_in_the_mean(make_run, tmp_path):
    run = make_run("a", accuracy=0.5)
    rewrite(run, "gqa", benchmark="mme", metrics={"accuracy": 1500.0})
    main([str(run), "--output", str(tmp_path / "report")])
    (row,) = json.loads((tmp_path / "report" / "results.json").read_text())["runs"]
    assert row["accuracy"]["gqa"] == 1500.0
    assert row["mean_accuracy"] == pytest.approx((1500 / 20 + 50 + 50) / 3)


@pytest.mark.parametrize(
    ("key", "left", "message"),
    [
        ("flops_ratio", None, "no flops_ratio;"),
        ("flops_ratio", {"paper": 0.5}, "no flops_ratio.full;"),
        ("visual_tokens", None, "no visual_tokens;"),
        ("device", None, "no device;"),
    ],
)
def test_scores_without_costs_are_refused_by_name(make_run, tmp_path, key, left, message):
    run = make_run("a")
    path = run / "pope" / "scores.json"
    scores = json.loads(path.read_text())
    del scores[key]
    path.write_text(json.dumps(scores if left is None else scores | {key: left}))
    with pytest.raises(SystemExit, match=f"run 'a', pope/scores.json: {message}"):
        main([str(run), "--output", str(tmp_path / "report")])


def test_answers_without_a_score_are_refused_by_number(make_run, tmp_path):
    run = make_run("a")
    path = run / "gqa" / "answers.jsonl"
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in [first | {"score": None}, *others]))
    with pytest.raises(SystemExit, match=r"run 'a', gqa/answers.jsonl: 1 of \d+ answers have no score"):
        main([str(run), "--output", str(tmp_path / "report")])
