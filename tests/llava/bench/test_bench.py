"""`python -m llava.bench` from flags to files, and how a run is judged."""

import json

import pytest

from llava.bench.__main__ import main
from llava.bench.arguments import parse
from llava.bench.bars import judge
from llava.bench.shapes import PRESETS

TINY = ("--preset", "tiny", "--device", "cpu", "--routes", "2x2,2x2,2x2", "--rounds", "2", "--warmup", "1")


def run(tmp_path, mode, *words):
    main([mode, *TINY, "--output", str(tmp_path), *words])
    return json.loads((tmp_path / f"{mode}.json").read_text())


def by_name(summary, case=0):
    return {row["name"]: row for row in summary["cases"][case]["variants"]}


def test_prefill_writes_data_table_and_figure_for_every_batch(tmp_path):
    summary = run(tmp_path, "prefill", "--batch", "1", "4")
    assert [case["batch"] for case in summary["cases"]] == [1, 4]
    assert "mixed" not in by_name(summary)
    rows = by_name(summary, 1)
    assert list(rows) == ["transformers", "dense", "identity", "2x2,2x2,2x2", "mixed"]
    assert rows["2x2,2x2,2x2"]["flops_share"]["full"] < rows["mixed"]["flops_share"]["full"] < 1
    assert all(row["cache"]["over_expected"] == 1 for row in rows.values())
    assert rows["dense"]["logits_off_transformers"] == 0
    assert len(rows["mixed"]["rounds"]["wall"]) == 2
    table = (tmp_path / "prefill.md").read_text()
    assert "| mixed |" in table
    assert "64 visual and 60 text tokens" in table
    assert (tmp_path / "prefill.png").read_bytes().startswith(b"\x89PNG")


def test_decode_times_the_first_token_and_every_step(tmp_path):
    summary = run(tmp_path, "decode", "--batch", "2", "--answers", "1", "4")
    single, several = by_name(summary), by_name(summary, 1)
    assert "step_seconds" not in single["dense"]
    for row in several.values():
        assert 0 < row["first_token_seconds"] < row["seconds"]
        assert 0 < row["step_seconds"] < row["seconds"]
    assert "ms per token" in (tmp_path / "decode.md").read_text()


def test_decode_with_the_tower_takes_ids_and_pixels(tmp_path):
    summary = run(tmp_path, "decode", "--batch", "2", "--answers", "2", "--tower", "True")
    assert summary["tower"] is True
    assert set(by_name(summary)) >= {"transformers", "dense", "mixed"}


def test_train_gives_every_model_the_same_language_loss(tmp_path):
    summary = run(tmp_path, "train", "--batch", "3")
    rows = by_name(summary)
    assert rows["dense"]["loss"] == pytest.approx(rows["transformers"]["loss"], rel=1e-5)
    assert "cache" not in rows["dense"]


def test_only_the_wanted_variants_run_and_dense_always_does(tmp_path):
    summary = run(tmp_path, "prefill", "--batch", "2", "--variants", "mixed")
    assert list(by_name(summary)) == ["dense", "mixed"]
    assert [bar["figure"] for bar in summary["bars"]] == ["key/value bytes / analytical"] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "huge"], "--preset must be one of tiny"),
        (["--rounds", "0"], "--rounds must be 1 or more, got 0"),
        (["--batch", "4", "0"], "--batch must be 1 or more, got 0"),
        (["--clock", "sun"], "--clock must be one of wall, cpu, got 'sun'"),
        (["--device", "gpu"], "--device must be auto, cpu, cuda or cuda:N, got .gpu."),
        (["--device", "cuda:99"], r"--device cuda:99: this machine shows \d+ CUDA devices"),
        (["--variants", "fast"], "got fast"),
        (["--supervised", "30"], "30 of 60 tokens, got 30"),
        (["--num_heads", "3"], "num_heads must divide hidden_size"),
    ],
)
def test_a_bad_flag_ends_in_one_line(words, message):
    with pytest.raises(SystemExit, match=message):
        main(["prefill", "--preset", "tiny", *words])


def test_sizes_given_beside_a_preset_win():
    _, arguments = parse(["prefill", "--preset", "7b", "--num_layers", "8", "--batch", "1", "2"])
    assert arguments.shape.num_layers == 8
    assert arguments.shape.hidden_size == PRESETS["7b"].hidden_size
    assert arguments.shape.dpe_layers == (2, 4, 6)


def test_the_papers_places_are_the_quarters_of_its_decoders():
    assert PRESETS["7b"].dpe_layers == (8, 16, 24)
    assert PRESETS["13b"].dpe_layers == (10, 20, 30)


def test_a_goal_is_met_up_to_its_limit_and_only_where_it_applies():
    def case(batch, over_flops):
        return {
            "batch": batch,
            "variants": [{"name": "mixed", "kind": "mixed", "over_flops": over_flops}],
        }

    found = judge("prefill", [case(4, 2.0), case(8, 1.08), case(8, 1.09)])
    assert [(bar["batch"], bar["met"]) for bar in found] == [(8, True), (8, False)]
    assert judge("decode", [case(8, 1.0)]) == []
