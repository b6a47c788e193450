"""docs/paper_notes.md is what its script writes, and what it says is what was worked out elsewhere."""

from pathlib import Path

import pytest

from dpn.analysis.paper import TABLES
from dpn.analysis.paper_costs import dense, fastv, fastv_fits, gflops, route_tokens, tokens_for
from dpn.analysis.paper_notes import T1, TEN, gain, main, misplaced_bold, page, wrong_averages

PAGE = Path(__file__).parents[3] / "docs" / "paper_notes.md"


def test_the_page_is_what_the_script_prints(capsys):
    main()
    assert PAGE.read_text(encoding="utf-8") == capsys.readouterr().out


def test_a_changed_cell_changes_the_page(monkeypatch):
    before = page()
    monkeypatch.setitem(T1.row("dpn").values, "gqa", "64.2")
    assert page() != before


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (dense(576), 2986.08),
        (dense(576, ffn_matrices=3), 3817.15),
        (dense(1024), 5428.84),
        (dense(1024, "13B"), 10522.67),
        (fastv(512, 0.5), 1431.30),
        (fastv(512, 0.6), 1192.15),
        (fastv(576, 0.5), 1613.3),
        (fastv(576, 0.6), 1343.5),
        (gflops(route_tokens((4, 4, 4), (8, 8, 8, 8))), 985.8),
        (gflops(route_tokens((2, 2, 2), (8, 8, 8, 8))), 1387.8),
        (gflops(route_tokens((4, 2, 1), (8, 8, 8, 8))), 1110.9),
        (gflops(route_tokens((4, 1, 4), (8, 8, 8, 8))), 1157.0),
        (gflops(route_tokens((2, 4, 4), (7, 8, 8, 9))), 1137.5),
        (tokens_for(1137), 223.3),
    ],
)
def test_flops_worked_out_elsewhere(found, expected):
    assert found == pytest.approx(expected, abs=0.06)


def test_fastv_comes_out_with_512_tokens_and_nothing_else():
    assert list(fastv_fits()) == ["512 tokens, K = 3, 2 matrices"]


@pytest.mark.parametrize(
    ("pair", "columns", "expected"),
    [
        (("dpn", "llava"), TEN, 0.735),
        (("dpn", "llava"), T1.averaged, 0.46),
        (("dpn-hr-x", "llava-hr-x"), TEN, -0.10),
        (("dpn-hr-x", "llava-hr-x"), T1.averaged, 0.15),
    ],
)
def test_gains_worked_out_elsewhere(pair, columns, expected):
    assert gain(T1, *pair, columns) == pytest.approx(expected, abs=0.006)
    assert gain(T1, "dpn", "llava", TEN, mmbench=64.3) == pytest.approx(0.515, abs=0.006)


def test_which_averages_are_wrong():
    found = {(table.name, row.key) for table in TABLES.values() for row, _ in wrong_averages(table)}
    assert found == {
        ("table1", "roe"),
        ("table1", "llava-hr-x"),
        ("table2", "mlp"),
        ("table2", "average_pool"),
        ("table2", "token_packer"),
    }


def test_which_bold_marks_are_misplaced():
    found = {
        (table.name, key, better.key) for table in TABLES.values() for key, _, better in misplaced_bold(table)
    }
    hr = {("table1", key, "llava-hr") for key in ("gqa", "textvqa", "vqav2", "mmbench", "average")}
    assert found == hr | {
        ("table2", "textvqa", "mlp"),
        ("table2", "mme", "mlp"),
        ("table2", "mmbench", "ldp_v2"),
    }
