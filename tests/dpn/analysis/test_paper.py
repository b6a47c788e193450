"""The paper's tables as data: sums worked out elsewhere, and what the evaluation knows of them."""

import pytest

from dpn.analysis.paper import TABLES, average_of, printed_number
from llava.eval.benchmarks import BENCHMARKS

TEN = tuple(column.key for column in TABLES["table1"].columns if column.kind == "score")


@pytest.mark.parametrize(
    ("table", "row", "average"),
    [
        ("table1", "moe-llava", 62.86),
        ("table1", "llava", 65.01),
        ("table1", "roe", 65.66),
        ("table1", "fastv-r0.5", 63.38),
        ("table1", "fastv-r0.6", 62.49),
        ("table1", "dpn", 65.47),
        ("table1", "llava-hr", 67.82),
        ("table1", "roe-hr", 67.00),
        ("table1", "dpn-hr", 67.41),
        ("table1", "llava-hr-x", 69.58),
        ("table1", "dpn-hr-x", 69.73),
        ("table2", "mlp", 63.70),
        ("table2", "average_pool", 62.54),
        ("table2", "token_packer", 63.67),
        ("table2", "dpn", 64.485),
        ("table3", "static-2x1", 62.09),
        ("table3", "static-1x2", 62.21),
        ("table3", "static-2x2", 62.355),
        ("table3", "dynamic-2x2-4x4", 59.715),
        ("table3", "early", 59.517),
        ("table3", "dpn", 63.293),
        ("table4", "baseline", 60.325),
        ("table4", "no-loss", 61.143),
        ("table4", "dpn", 61.40),
    ],
)
def test_averages_of_the_printed_numbers(table, row, average):
    assert TABLES[table].recomputed_average(row) == pytest.approx(average, abs=0.0051)


@pytest.mark.parametrize(("row", "mean"), [("llava", 62.160), ("dpn", 62.895), ("llava-hr-x", 66.50)])
def test_means_over_the_ten_benchmarks(row, mean):
    assert average_of(TABLES["table1"].row(row), TEN) == pytest.approx(mean, abs=0.005)


def test_sums_of_columns_catch_a_slip_in_any_cell():
    """Every cell was compared with the paper's text by a script; these are that text's sums."""
    sums = {
        "table1": "905.3 951.1 845.1 1069.2 20698 421.5 871.8 284.5 542.3 1122.7 725.8 38825 90.3",
        "table2": "1816 691.9 487.4 772.7 399.2 286.94 142.6 576.8 7334 253.93",
        "table3": "371.24 339.45 395.17 522.4 208.5 378.3 369.17",
        "table4": "188.34 189 174.53 183 261.5 183.4 107.1 184 182.8 184.5",
    }
    for name, totals in sums.items():
        table = TABLES[name]
        columns = [column.key for column in table.columns if not column.is_ours]
        for column, total in zip(columns, totals.split(), strict=True):
            numbers = [row.number(column) for row in table.rows]
            found = sum(number for number in numbers if number is not None)
            assert found == pytest.approx(float(total)), (name, column)


def test_columns_carry_the_labels_of_the_evaluation():
    for table in TABLES.values():
        for column in table.columns:
            if column.kind == "score":
                assert column.protocol == BENCHMARKS[column.benchmark].published_protocol


def test_the_evaluation_and_the_tables_agree_on_what_dpn_reached():
    for name, benchmark in BENCHMARKS.items():
        table = "table2" if name == "vizwiz" else "table1"
        assert benchmark.published["dpn-llava-7b"] == printed_number(table, "dpn", name)


def test_rows_that_were_only_reported():
    reported = {row.key for table in TABLES.values() for row in table.rows if row.is_reported}
    assert reported == {"idefics", "instructblip", "vila", "qwen-vl", "moe-llava", "roe", "roe-hr"}


def test_rows_are_tested_against_a_row_of_their_table():
    for table in TABLES.values():
        keys = [row.key for row in table.rows]
        assert len(set(keys)) == len(keys)
        assert all(row.baseline in keys for row in table.rows if not row.is_reported)


def test_an_empty_cell_is_no_number():
    assert TABLES["table1"].row("vila").number("mmmu") is None
    assert TABLES["table2"].row("prumerge_plus").number("tokens") == 144
    assert TABLES["table2"].recomputed_average("resampler") is None
    with pytest.raises(ValueError, match="table1, row vila: nothing is printed under mmmu"):
        printed_number("table1", "vila", "mmmu")


def test_marks_of_bold_are_kept_apart():
    row = TABLES["table1"].row("dpn")
    assert (row.printed("gqa"), row.is_bold("gqa"), row.is_bold("mme")) == ("63.2", True, False)
