"""`python -m dpn.analysis.tables`: what stands in its cells and notes, and what depends on what is shown."""

import json

import pytest

from dpn.analysis.paper import TABLES
from dpn.analysis.tables import main
from dpn.methods import METHODS
from tests.dpn.analysis.scored import write_run

MARKS = {"gqa": [1.0, 0.0] * 20, "textvqa": [1.0, 1.0, 0.0] * 10, "pope": [1.0] * 9, "mmmu": [0.0, 1.0]}
PLAIN = "plain LLaVA, without a reduction"
DPN = {"method": "dpn", "layers": [2, 4, 6], "eval_choice": "argmax"}


@pytest.fixture
def show(tmp_path, capsys):
    """Write a table, its picture left out, and give its Markdown lines and its JSON."""

    def call(table, *words):
        main([table, *words, "--samples", "50", "--output", str(tmp_path / "out")])
        lines = capsys.readouterr().out.splitlines()
        return lines, json.loads((tmp_path / "out" / f"{table}.json").read_text())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dpn.analysis.tables.draw", lambda table, path: None)
        yield call


@pytest.fixture
def run(tmp_path):
    return lambda name, **changes: write_run(tmp_path / name, MARKS, **changes)


def cells(lines, start):
    """Give the cells of the first row that starts with a name."""
    return next(line.strip("| ").split(" | ") for line in lines if line.startswith(f"| {start} |"))


def places(config):
    found = config.get("layers", [config["layer"]] if "layer" in config else [])
    return ",".join(map(str, found)) or "-"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("words", [(), ("--small_world",)])
def test_table_3_shows_the_layers_of_any_method(run, show, method, words):
    reduction = json.loads(json.dumps(METHODS[method]().to_dict()))
    lines, _ = show("table3", *words, "--runs", f"+mine={run('mine', reduction=reduction)}")
    assert cells(lines, "mine")[1] == places(reduction)


@pytest.mark.parametrize(
    ("row", "reduction", "shown"),
    [
        ("dynamic 1x2, 2x2 pooling", DPN | {"layers": [8, 16, 24]}, "8,16,24"),
        ("dynamic 1x2, 2x2 pooling", DPN, "paper: 8,16,24; ours: 2,4,6"),
        ("dynamic 1x2, 2x2 pooling", None, "paper: 8,16,24; ours: -"),
        ("dynamic 1x2, 2x2 pooling", DPN | {"layers": "2,4"}, "paper: 8,16,24; ours: -"),
    ],
)
def test_layers_that_are_not_the_papers_are_shown_beside_them(run, show, row, reduction, shown):
    lines, _ = show("table3", "--runs", f"dpn={run('dpn', reduction=reduction)}")
    assert cells(lines, row)[1] == shown
    assert cells(lines, "static 2x1 pooling")[1] == "8,16,24"
    lines, _ = show("table3", "--small_world", "--runs", f"dpn={run('small', reduction=reduction)}")
    assert cells(lines, row)[1] == shown.rpartition(" ")[2]


def test_a_row_without_layers_in_the_paper_takes_those_of_the_run(run, show):
    lines, _ = show("table3", "--runs", f"pre-pooling={run('a', reduction={'method': 'downsample'})}")
    assert cells(lines, "pre-pooling")[1] == "-"


@pytest.mark.parametrize("table", TABLES)
def test_a_row_of_ones_own_takes_no_name_of_the_table(run, show, table):
    folder = run("mine")
    for row in TABLES[table].rows:
        with pytest.raises(SystemExit, match=r"is a row of the table|give yours another name, as in"):
            show(table, "--runs", f"+{row.key}={folder}")


def test_a_reported_row_can_not_be_filled(run, show):
    with pytest.raises(SystemExit, match=r"row 'roe' .* from others, .* as in \+my-roe="):
        show("table1", "--runs", f"roe={run('mine')}")


def notes(lines):
    return [line for line in lines if "this row is about" in line]


@pytest.mark.parametrize(
    ("row", "reduction", "note"),
    [
        ("llava", DPN, f"* LLaVA 1.5: this row is about {PLAIN}; our run is one of dpn"),
        ("fastv-r0.5", None, f"* FastV (K=3, R=0.5): this row is about fastv; our run is one of {PLAIN}"),
        ("llava", None, None),
        ("fastv-r0.5", {"method": "fastv", "layer": 3}, None),
        ("+mine", None, None),
    ],
)
def test_a_row_filled_by_another_method_has_a_note(run, show, row, reduction, note):
    lines, _ = show("table1", "--columns", "gqa", "--runs", f"{row}={run('a', reduction=reduction)}")
    assert notes(lines) == ([note] if note else [])


@pytest.mark.parametrize(
    ("table", "row", "reduction", "note"),
    [
        ("table1", "dpn", DPN | {"preset": "paper", "layers": [2, 4, 6]}, "preset=paper layers=2,4,6"),
        ("table1", "fastv-r0.5", {"method": "fastv", "layer": 1, "ratio": 0.5}, "layer=1 ratio=0.5"),
        ("table4", "no-loss", {"method": "dpn", "preset": "paper"}, "preset=paper"),
    ],
)
def test_a_note_says_which_settings_stand_behind_a_row_of_the_paper(run, show, table, row, reduction, note):
    lines, _ = show(table, "--columns", "gqa", "--runs", f"{row}={run('a', reduction=reduction)}")
    assert [line.partition(": our run has ")[2] for line in lines if ": our run has " in line] == [note]


def test_baselines_of_the_other_tables_are_watched_too(run, show):
    folder = run("a", reduction=DPN)
    for table, row in (("table2", "mlp"), ("table4", "baseline")):
        lines, _ = show(table, "--columns", "gqa", "--runs", f"{row}={folder}")
        assert len(notes(lines)) == 1


@pytest.fixture
def pair(run):
    return f"baseline={run('base')}", f"dpn={run('dpn', reduction=DPN, flops=0.25)}"


@pytest.mark.parametrize("words", [(), ("--small_world",)])
def test_averages_costs_and_their_test_are_the_same_whatever_is_shown(show, pair, words):
    _, full = show("table4", *words, "--runs", *pair)
    lines, part = show("table4", *words, "--columns", "average", "average_flops", "--runs", *pair)
    assert part["averaged"] == full["averaged"] == ["gqa", "textvqa", "pope", "mmmu"]
    for row, whole in zip(part["rows"], full["rows"], strict=True):
        assert row["ours"] == {key: whole["ours"][key] for key in row["ours"]}
    (test,) = part["tests"]
    assert test == full["tests"][-1]
    assert test["benchmark"] == "average"
    assert cells(lines, "+ Routing Loss")[-1] != "-"
    assert "* our average: over GQA, VQA-T, POPE, MMMU; where one is missing there is none" in lines


def test_an_average_that_is_not_shown_is_not_tested(show, pair):
    _, found = show("table4", "--columns", "gqa", "--runs", *pair)
    assert [test["benchmark"] for test in found["tests"]] == ["gqa"]


def test_a_missing_interval_of_an_average_is_explained_by_its_hidden_benchmark(run, show):
    folder = run("a", headline=12.0)
    lines, _ = show("table4", "--columns", "average", "--runs", f"dpn={folder}")
    assert sum("no interval for dpn, VQA-T: the scores in answers.jsonl" in line for line in lines) == 1


def test_the_picture_shows_names_as_they_are_written(run, tmp_path):
    main(
        [
            "table4",
            *("--small_world", "--columns", "gqa", "--samples", "10", "--output", str(tmp_path / "out")),
            *("--runs", f"+$^^$ a_b={run('a')}"),
        ]
    )
    assert (tmp_path / "out" / "table4.png").stat().st_size > 5000
