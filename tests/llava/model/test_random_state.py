"""Loading and converting draw nothing from the caller's random generators, whatever kind a directory is."""

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.convert import main as convert
from llava.train.checkpoint import save_projector
from tests.llava.model.test_lora import write_lora

DPN = ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")


def states():
    numbers = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numbers[1].tolist(), numbers[2]


@contextmanager
def unchanged():
    torch.manual_seed(1)
    before = states()
    yield
    assert states() == before


def load(path, base=None, **options):
    load_pretrained_model(
        str(path), None if base is None else str(base), device="cpu", device_map=None, **options
    )


def save(built, folder):
    built[0].save_pretrained(folder)
    built[1].save_pretrained(folder)
    return folder


def test_full_checkpoints(tiny_llava, tiny_base, tmp_path):
    for number, words in enumerate([(), DPN, (*DPN, "preset=paper")]):
        folder = save(tiny_llava(*words), tmp_path / str(number))
        with unchanged():
            load(folder)
    with unchanged():
        load(tiny_base)
    with unchanged():
        load(tiny_base, reduction=["dpn", "layers=1,2,3", "eval_choice=static", "route=2x2,1x2,1x1"])


def test_a_checkpoint_that_gains_tokens(tiny_llava, tmp_path):
    built = tiny_llava()
    built[1].config.mm_use_im_start_end = True
    folder = save(built, tmp_path / "model")
    with unchanged():
        load(folder)


@pytest.mark.parametrize("words", [(), DPN], ids=["plain", "dpn"])
def test_what_lies_beside_a_base(tiny_llava, tiny_base, tmp_path, words):
    (tmp_path / "lora").mkdir()
    write_lora(tiny_llava(*words)[1], tmp_path / "lora")
    with unchanged():
        load(tmp_path / "lora", tiny_base)
    if words:
        return
    save_projector(tiny_llava()[1], tmp_path / "stage1", is_writer=True)
    with unchanged():
        load(tmp_path / "stage1", tiny_base)


def test_hf_format_and_the_converter(tiny_llava, tmp_path):
    folder = save(tiny_llava(), tmp_path / "model")
    with unchanged():
        convert(["--src", str(folder), "--dst", str(tmp_path / "hf"), "--to", "hf"])
    with unchanged():
        load(tmp_path / "hf")
    with unchanged():
        convert(["--src", str(tmp_path / "hf"), "--dst", str(tmp_path / "back"), "--to", "llava"])
