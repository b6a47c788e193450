"""Training steps under ZeRO on two ranks of a CPU, and the memory of a step."""

import json

import pytest
import torch
from torch import nn

from llava.bench.__main__ import main
from llava.bench.memory import step_memory
from llava.bench.timing import Task

TINY = ("--preset", "tiny", "--device", "cpu", "--rounds", "1", "--warmup", "0")
CPU = torch.device("cpu")


@pytest.mark.slow
def test_two_ranks_of_zero_3_give_times_and_memory_as_ratios_to_dense(tmp_path):
    pytest.importorskip("deepspeed", reason="the extra `train` is not installed")
    words = ("--zero", "3", "--ranks", "2", "--batch", "2", "--variants", "identity", "uniform")
    main(["train", *TINY, *words, "--routes", "2x2,2x2,2x2", "--output", str(tmp_path)])
    summary = json.loads((tmp_path / "train_zero3.json").read_text())
    assert (summary["zero"], summary["ranks"], summary["bars"]) == (3, 2, [])
    (case,) = summary["cases"]
    assert (case["batch"], case["samples"]) == (2, 4)
    rows = {row["name"]: row for row in case["variants"]}
    assert list(rows) == ["dense", "identity", "2x2,2x2,2x2"]
    # the same samples in one process
    main(["train", *TINY, "--batch", "4", "--variants", "dense", "--output", str(tmp_path)])
    alone = json.loads((tmp_path / "train.json").read_text())["cases"][0]["variants"][0]
    assert rows["dense"]["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    ratios = {name: row["memory"]["kept_bytes_over_dense"] for name, row in rows.items()}
    assert ratios["dense"] == 1
    assert ratios["2x2,2x2,2x2"] < 0.9 < ratios["identity"] < 1.2
    assert "ZeRO-3 on 2 rank(s)" in (tmp_path / "train_zero3.md").read_text()
    assert (tmp_path / "train_zero3.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("mode", "words", "message"),
    [
        ("train", ["--zero", "1"], "--zero must be 0, 2 or 3, got 1"),
        ("train", ["--ranks", "2"], "--ranks 2 needs --zero 2 or 3"),
        ("train", ["--zero", "3", "--ranks", "0"], "--ranks must be 1 or more, got 0"),
        ("train", ["--zero", "3", "--dtype", "float16"], "--zero takes float32 or bfloat16"),
        ("prefill", ["--zero", "3"], "--zero 3 is for train"),
    ],
)
def test_ranks_that_make_no_sense_end_in_one_line(mode, words, message):
    with pytest.raises(SystemExit, match=message):
        main([mode, "--preset", "tiny", *words])


def test_the_memory_of_a_step_is_what_it_allocates_and_what_autograd_keeps():
    layer, given = nn.Linear(64, 256, bias=False), torch.randn(100, 64)

    def run():
        hidden = layer(given)  # 100 x 256, kept by tanh's result only
        result = torch.tanh(hidden)
        del hidden
        result.sum().backward()

    found = step_memory(Task(run, lambda _: layer.zero_grad(set_to_none=True) or {}), layer, CPU)
    assert found["kept_bytes"] == 4 * (100 * 64 + 100 * 256)
    gradient, activation = 4 * 64 * 256, 4 * 100 * 256
    assert 2 * activation <= found["step_bytes"] <= 3 * activation + gradient
