"""Maintenance commands: consolidate, extract the projector; upstream's flags, nothing is changed in place."""

import argparse
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.builder import load_pretrained_model
from llava.model.commands import dtype_named, run
from llava.model.consolidate import main as consolidate
from llava.model.extract_projector import main as extract
from tests.golden_data import golden_root

ROOT = Path(__file__).parents[3]


@pytest.fixture
def fat(tiny_llava, tmp_path):
    """Give a checkpoint as DeepSpeed saves it: with the frozen tower inside."""
    tokenizer, model, _ = tiny_llava()
    model.save_pretrained(tmp_path / "fat")
    tokenizer.save_pretrained(tmp_path / "fat")
    tower = {f"model.vision_tower.{k}": v for k, v in model.model.vision_tower.state_dict().items()}
    weights = load_file(tmp_path / "fat/model.safetensors")
    save_file({**weights, **tower}, tmp_path / "fat/model.safetensors", metadata={"format": "pt"})
    return tmp_path / "fat", weights


def test_consolidating_keeps_the_weights_that_are_read_in_half_precision(fat, tmp_path):
    folder, weights = fat
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    consolidate(["--src", str(folder), "--dst", str(tmp_path / "thin")])
    written = load_file(tmp_path / "thin/model.safetensors")
    assert {name: value.shape for name, value in written.items()} == {
        name: value.shape for name, value in weights.items()
    }
    assert all(torch.equal(value, weights[name].half()) for name, value in written.items())
    assert json.loads((tmp_path / "thin/config.json").read_text())["dtype"] == "float16"
    assert load_pretrained_model(str(tmp_path / "thin"), None, device="cpu")[1].dtype == torch.float32
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_the_projector_is_taken_out_of_safetensors_and_of_shards(fat, tmp_path):
    folder, weights = fat
    shards = golden_root() / "common/llava-tiny"
    for source, expected in [
        (folder, {name: value for name, value in weights.items() if "mm_projector" in name}),
        (shards, torch.load(shards / "mm_projector.bin", weights_only=True)),
    ]:
        extract(["--model-path", str(source), "--output", str(tmp_path / "new/mm_projector.bin")])
        written = torch.load(tmp_path / "new/mm_projector.bin", weights_only=True)
        assert set(written) == set(expected)
        assert len(written) == 4
        assert all(torch.equal(value, expected[name]) for name, value in written.items())


def test_what_has_no_projector_or_misses_a_shard_is_refused(fat, tiny_base, tmp_path):
    output = ["--output", str(tmp_path / "out.bin")]
    with pytest.raises(ValueError, match="holds no mm_projector"):
        extract(["--model-path", str(tiny_base), *output])
    (fat[0] / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        extract(["--model-path", str(fat[0]), *output])
    index = {"weight_map": {"model.mm_projector.0.weight": "model-00001-of-00002.safetensors"}}
    (fat[0] / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"holds no model-00001-of-00002.safetensors, which its index names"):
        extract(["--model-path", str(fat[0]), *output])
    assert not (tmp_path / "out.bin").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["scripts/extract_mm_projector.py", "--model-path", "nowhere", "--output", "x.bin"],
        [
            "scripts/merge_lora_weights.py",
            "--model-path",
            "no",
            "--model-base",
            "no",
            "--save-model-path",
            "x",
        ],
    ],
)
def test_a_script_ends_with_one_line_where_its_input_is_wrong(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    assert str(ended.value).startswith(f"{words[0]}: no checkpoint at no")


def test_an_error_ends_a_command_with_its_message_alone():
    with pytest.raises(SystemExit, match="a command: what was wrong"):
        run(lambda: (_ for _ in ()).throw(ValueError("what was wrong")), "a command")


def test_only_floating_dtypes_are_taken():
    assert dtype_named("bfloat16") == torch.bfloat16
    for name in ("int8", "floaty"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"got '{name}'"):
            dtype_named(name)
