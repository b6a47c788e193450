import logging
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llava.train import trial
from llava.train.__main__ import main
from llava.train.longest import longest_batch
from llava.train.train import prepare, run
from llava.train.trial import TrialStep

DPN = ["--reduction", "dpn", "preset=policy", "layers=1,2"]


@pytest.mark.parametrize("words", [DPN, ["--lora_enable", "True", "--gradient_accumulation_steps", "2"]])
def test_a_run_after_a_trial_is_the_run_without_one(words, command, tmp_path, monkeypatch):
    run(prepare(command(tmp_path / "with", *words)))
    monkeypatch.setattr(TrialStep, "on_train_begin", lambda *_, **__: None)
    run(prepare(command(tmp_path / "without", *words)))
    name = "adapter_model.safetensors" if "--lora_enable" in words else "model.safetensors"
    tried, untried = (load_file(tmp_path / folder / name) for folder in ("with", "without"))
    assert tried.keys() == untried.keys()
    assert all(torch.equal(tried[key], untried[key]) for key in tried)


def test_only_checks_are_made_and_nothing_is_trained(command, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        main(command(tmp_path, "--preflight_only", "True"))
    assert "tried the longest batch, 3 samples" in caplog.text
    assert "all checks passed; nothing was trained" in caplog.text
    assert "estimate per GPU: 1 GPU(s), no ZeRO" in caplog.text
    assert not [file for file in tmp_path.iterdir() if file.name != "run.json"]


def test_a_batch_that_memory_cannot_hold_is_said_in_one_line(command, tmp_path, monkeypatch):
    def too_much(*_):
        raise torch.OutOfMemoryError("Tried to allocate 9 GiB.\nmore")

    monkeypatch.setattr(trial, "_forward_and_backward", too_much)
    with pytest.raises(SystemExit) as ended:
        main(command(tmp_path))
    message = str(ended.value.code)
    assert "the longest batch (3 samples of up to" in message
    assert "Tried to allocate 9 GiB. Halve --per_device_train_batch_size" in message
    assert "\n" not in message


def test_a_loss_that_is_not_finite_ends_the_run_before_the_first_step(command, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "_forward_and_backward", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(ValueError, match="the loss of the longest batch is nan before the first step"):
        run(prepare(command(tmp_path)))


def test_all_generators_go_on_as_if_nothing_had_been_drawn():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with trial._kept_random_state(torch.device("cpu")):
        torch.rand(3), np.random.rand(3), random.random()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


@pytest.mark.parametrize("is_grouped", [True, False])
def test_the_longest_batch_is_one_with_the_longest_samples(is_grouped):
    lengths = [5, -40, 6, -7, 300, 8, -9, 10]
    found = longest_batch(
        lengths,
        batch_size=2,
        num_chunks=1,
        tokens_per_image=16,
        longest=2048,
        is_grouped=is_grouped,
        seed=0,
    )
    assert 4 in found
    assert len(found) == 2


def test_a_sample_counts_no_more_than_training_keeps_of_it():
    lengths = [900, 20, 21, 22]  # cut at 30 tokens all are alike but the short one's batch
    found = longest_batch(
        [*lengths, -1, -1],
        batch_size=2,
        num_chunks=1,
        tokens_per_image=16,
        longest=30,
        is_grouped=True,
        seed=0,
    )
    assert all(index < 4 for index in found)
