"""`python -m llava.bench compare`: rows, counts and files of a run, and what is refused."""

import json

import pytest

from llava.bench.__main__ import main
from llava.bench.compare.arguments import parse
from llava.bench.compare.schema import SCHEMA

ROUNDS, WARMUP = 3, 1
TIMED = ["dense", "dpn@0.5", "static@0.5", "fastv@0.5", "pyramid_drop@0.5", "random@0.5", "truncate@0.5"]


def test_every_method_has_a_row_and_a_budget_that_none_of_its_settings_meets_has_a_line(comparison):
    assert list(comparison.rows) == [*TIMED, "resampler@0.5", "average_pool scale=2"]
    (missed,) = comparison.document["missed"]
    assert (missed["method"], missed["budget"], missed["settings"]) == ("average_pool", 0.5, ["scale=2"])
    assert missed["nearest"] == pytest.approx(comparison.rows["average_pool scale=2"]["share"])
    assert "| average_pool | 0.5 | 0.208 | scale=2 | all |" in (comparison.folder / "compare.md").read_text()


def test_budgets_are_met_in_the_run_as_they_were_computed(comparison):
    for row in comparison.rows.values():
        assert row["share"] == pytest.approx(row["share_computed"], abs=1e-6)
        if row["budget"] is not None:
            assert abs(row["share"] - 0.5) <= comparison.document["tolerance"]


def test_rows_of_all_methods_are_complete(comparison):
    names = set(SCHEMA["cases"].item["rows"].item["phases"])
    assert names == {"encode", "select", "prefill", "decode", "end_to_end"}
    for row in comparison.rows.values():
        seconds = {phase: row["phases"][phase]["seconds"] for phase in names}
        assert min(seconds[phase] for phase in names - {"select"}) > 0
        assert row["kv_bytes"] > 0
        assert row["peak_bytes"] > 0
        assert row["step_seconds"] > 0
        for series in row["rounds"].values():
            assert len(series) == ROUNDS


def test_encode_prefill_and_decode_together_are_the_whole_run(comparison):
    for row in comparison.rows.values():
        rounds = row["rounds"]
        for whole, *parts in zip(
            *(rounds[n] for n in ("end_to_end", "encode", "prefill", "decode")), strict=True
        ):
            assert 0.8 * whole < sum(parts) <= whole


def test_only_methods_that_decide_spend_time_on_it(comparison):
    deciding = {name: row["select_parts"]["deciding"] for name, row in comparison.rows.items()}
    assert deciding["dense"] == deciding["resampler@0.5"] == 0
    for name in TIMED[1:]:
        assert 0 < deciding[name] < comparison.rows[name]["phases"]["prefill"]["seconds"]


def test_the_full_counting_is_what_torch_counts(comparison):
    for row in comparison.rows.values():
        counted = row["flops"]["prefill"]
        assert counted["measured"] == pytest.approx(counted["full"], rel=2e-3)
        assert counted["paper"] < counted["full"]
        assert row["attention_not_counted"] == []
    assert comparison.rows["dense"]["flops_share"] == {"paper": 1, "full": 1, "measured": 1}
    assert comparison.rows["fastv@0.5"]["flops_share"]["measured"] < 0.7


def test_the_cache_of_a_method_is_as_large_as_its_tokens_need(comparison):
    for row in comparison.rows.values():
        per_token = 2 * 2 * (64 // 4) * 4  # keys and values, heads, width, float32
        assert row["kv_bytes"] == pytest.approx(2 * sum(row["tokens"]) * per_token)


def test_contenders_are_interleaved_in_an_order_drawn_anew_every_round(comparison):
    names = list(comparison.rows)
    warm, timed = comparison.order[: WARMUP * len(names)], comparison.order[WARMUP * len(names) :]
    assert sorted(warm) == sorted(names)
    rounds = [timed[start : start + len(names)] for start in range(0, len(timed), len(names))]
    assert len(rounds) == ROUNDS
    assert all(sorted(one) == sorted(names) for one in rounds)
    assert rounds[0] != rounds[1]


def test_a_ratio_is_the_median_of_the_ratios_within_a_round(comparison):
    own, dense = (comparison.rows[name] for name in ("fastv@0.5", "dense"))
    pairs = zip(own["rounds"]["prefill"], dense["rounds"]["prefill"], strict=True)
    assert own["phases"]["prefill"]["over_dense"]["median"] == pytest.approx(
        sorted(mine / theirs for mine, theirs in pairs)[ROUNDS // 2]
    )


def test_table_and_figure_come_again_from_the_checked_file(comparison, tmp_path, capsys):
    path = tmp_path / "compare.json"
    path.write_text(json.dumps(comparison.document))
    main(["compare", "--render", str(path)])
    assert (tmp_path / "compare.md").read_text() == (comparison.folder / "compare.md").read_text()
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert "| resampler@0.5 |" in capsys.readouterr().out
    path.write_text("{}")
    with pytest.raises(
        SystemExit, match=r"compare.json has the schema None, expected 'llava.bench.compare/1'"
    ):
        main(["compare", "--render", str(path)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "fastvv"], r"--methods: unknown method 'fastvv'; did you mean fastv"),
        (["--methods", "dpn", "dpn"], "--methods names 'dpn' twice"),
        (["--methods", "fastv  layer=1", "fastv layer=1"], "--methods names 'fastv layer=1' twice"),
        (["--methods", "dense foo=1"], "--methods 'dense foo=1': dense has no settings; leave them out"),
        (["--budgets", "0.5", "0.25", "0.5"], "--budgets names 0.5 twice"),
        (["--budgets", "0.3333333", "0.3333334"], "--budgets names 0.333333 twice, to the six digits"),
        (["--budgets", "1.5"], "above 0 and up to 1, got 1.5"),
        (["--budgets", "nan"], "above 0 and up to 1, got nan"),
        (["--tolerance", "1"], "--tolerance must be from 0 to below 1, got 1"),
        (["--answers", "0"], "--answers must be 1 or more, got 0"),
        (["--methods", "fastv layer=9"], "layers=9 doesn't fit a decoder with 4 layers"),
        (["--methods", "fastv speed=9"], "--reduction fastv has no field 'speed'"),
        (["--methods", "dpn layers=1,2"], r"dpn layers=1,2: .* one route; name it once, as in route=2x2,1x2"),
        (["--methods", "dpn route=2x2"], "route=2x2 needs one kernel per DPE, 3"),
        (["--methods", "dpn route=2x2,3x3,1x1"], r"routes name \[\(3, 3\)\]"),
        (["--methods", "average_pool scale=3"], "scale=3 does not divide the 8x8 grid"),
        (["--model_path", "somewhere"], "--model_path brings its sizes along, but --preset was given, too"),
    ],
)
def test_a_bad_flag_ends_in_one_line(words, message):
    with pytest.raises(SystemExit, match=message):
        main(["compare", "--preset", "tiny", "--device", "cpu", *words])


def test_a_checkpoint_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="nowhere/at/all"):
        _ = parse(["--model_path", "nowhere/at/all"]).shape
