"""8-bit and 4-bit loading: what is asked of bitsandbytes, and the errors where it can't be."""

import importlib.util

import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.quantization import quantization_config
from tests.golden_data import golden_root
from tests.llava.model.prompts import make_batch


def config(load_8bit, load_4bit):
    return quantization_config(load_8bit=load_8bit, load_4bit=load_4bit, compute_dtype=torch.float16)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that bitsandbytes is installed: only its description is made here."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_nothing_asked_is_nothing_needed():
    assert config(load_8bit=False, load_4bit=False) is None


def test_four_bits_are_upstreams_nf4_and_small_modules_stay_whole(installed):
    made = config(load_8bit=False, load_4bit=True)
    assert (made.load_in_4bit, made.bnb_4bit_quant_type, made.bnb_4bit_use_double_quant) == (
        True,
        "nf4",
        True,
    )
    assert made.bnb_4bit_compute_dtype == torch.float16
    whole = {name.removeprefix("model.") for name in made.llm_int8_skip_modules}
    assert whole == {"mm_projector", "vision_tower", "lm_head", "reducer"}


def test_eight_bits_leave_the_same_modules_whole(installed):
    made = config(load_8bit=True, load_4bit=False)
    assert made.load_in_8bit
    assert made.llm_int8_skip_modules == config(load_8bit=False, load_4bit=True).llm_int8_skip_modules


@pytest.mark.parametrize("bits", ["load_8bit", "load_4bit"])
def test_a_missing_bitsandbytes_is_named(tiny_llava, tmp_path, monkeypatch, bits):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=f"{bits} needs bitsandbytes, which isn't installed"):
        load_pretrained_model("anywhere", None, device="cpu", **{bits: True})


def test_both_at_once_are_refused(installed):
    with pytest.raises(ValueError, match="exclude each other"):
        config(load_8bit=True, load_4bit=True)


@pytest.mark.parametrize("bits", ["load_8bit", "load_4bit"])
def test_decoder_layers_are_quantised_and_nothing_else(tiny_llava, tmp_path, bits):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes isn't installed")
    tokenizer, model, _ = tiny_llava("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_pretrained_model(str(tmp_path), None, device="cpu", dtype=torch.float32, **{bits: True})[1]
    kinds = {
        name.removeprefix("model.").split(".")[0]: type(module).__name__
        for name, module in loaded.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    wanted = "Linear8bitLt" if bits == "load_8bit" else "Linear4bit"
    assert kinds.pop("layers") == wanted
    assert wanted not in {*kinds.values(), type(loaded.lm_head).__name__}


@pytest.mark.parametrize(("bits", "error"), [("load_8bit", 0.5), ("load_4bit", 6)])
def test_quantised_logits_are_near_the_exact_ones(monkeypatch, bits, error):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes isn't installed")
    monkeypatch.chdir(golden_root() / "common")
    options = {"device": "cpu", "dtype": torch.float32}
    exact, near = (
        load_pretrained_model("llava-tiny", None, **options, **more)[1] for more in ({}, {bits: True})
    )
    batch = {**make_batch(), "labels": None}
    difference = (exact(**batch).logits - near(**batch).logits).abs().max()
    assert 0 < difference < error  # logits have a standard deviation of 2.3
