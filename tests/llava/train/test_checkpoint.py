import json
import logging
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from llava.train.checkpoint import check_engine, last_checkpoint, rehearse_saving, save_projector

STATE = '{"global_step": 1, "max_steps": 9, "num_train_epochs": 1}'


@pytest.fixture
def make_checkpoint(tmp_path):
    def make(step, *missing):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"a": torch.zeros(64)}, folder / "model.safetensors")
        torch.save({"a": torch.zeros(64)}, folder / "optimizer.pt")
        for name in ("scheduler.pt", "rng_state.pth"):
            torch.save({}, folder / name)
        (folder / "trainer_state.json").write_text(STATE)
        for name in missing:
            (folder / name).unlink()
        return folder

    return make


class Tokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").touch()


def test_the_projector_file_holds_upstreams_keys_and_nothing_else(stub, tmp_path):
    stub.model.model.embed_tokens.requires_grad_(False)
    save_projector(stub.model, tmp_path, is_writer=True)
    saved = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert sorted(saved) == [
        "model.mm_projector.0.bias",
        "model.mm_projector.0.weight",
        "model.mm_projector.2.bias",
        "model.mm_projector.2.weight",
    ]
    assert torch.equal(saved["model.mm_projector.0.weight"], stub.model.model.mm_projector[0].weight)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "stub_llava"


def test_ranks_that_do_not_write_write_nothing(stub, tmp_path):
    save_projector(stub.model, tmp_path / "out", is_writer=False)
    assert not (tmp_path / "out").exists()


def test_the_latest_complete_checkpoint_is_found_by_number(make_checkpoint, tmp_path):
    make_checkpoint(9)
    latest = make_checkpoint(10)
    assert last_checkpoint(tmp_path) == latest


@pytest.mark.parametrize(
    "missing",
    ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"],
)
def test_an_incomplete_checkpoint_is_passed_over_with_a_notice(make_checkpoint, missing, tmp_path, caplog):
    complete = make_checkpoint(1)
    broken = make_checkpoint(2, missing)
    with caplog.at_level(logging.WARNING):
        assert last_checkpoint(tmp_path) == complete
    assert str(broken) in caplog.text


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"global_step": 2}', STATE.replace("9", "null")])
def test_a_checkpoint_whose_state_says_too_little_is_passed_over(state, make_checkpoint, tmp_path, caplog):
    complete = make_checkpoint(1)
    (make_checkpoint(2) / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == complete
    assert "checkpoint-2 is incomplete" in caplog.text


def test_a_file_called_like_a_checkpoint_is_passed_over(make_checkpoint, tmp_path, caplog):
    complete = make_checkpoint(1)
    (tmp_path / "checkpoint-5").touch()
    assert last_checkpoint(tmp_path) == complete
    assert "checkpoint-5 is incomplete" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_checkpoint_with_a_file_that_was_cut_off_is_passed_over(
    make_checkpoint, name, kept, tmp_path, caplog
):
    complete = make_checkpoint(1)
    file = make_checkpoint(2) / name
    size = file.stat().st_size
    os.truncate(file, kept if kept >= 0 else size - 1)
    assert last_checkpoint(tmp_path) == complete
    assert f"checkpoint-2 is damaged ({name}) and is not used" in caplog.text


def test_a_checkpoint_that_lacks_a_shard_of_its_weights_is_passed_over(make_checkpoint, tmp_path, caplog):
    complete = make_checkpoint(1)
    shards = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (make_checkpoint(2) / "model.safetensors.index.json").write_text(json.dumps(shards))
    assert last_checkpoint(tmp_path) == complete
    assert "checkpoint-2 is damaged (model-00002-of-00002.safetensors)" in caplog.text


def test_the_states_of_deepspeeds_ranks_are_looked_at_too(make_checkpoint, tmp_path, caplog):
    states = write_engine_files(make_checkpoint(1), 3, 2) / "global_step1"
    assert last_checkpoint(tmp_path) is None
    assert "global_step1/zero_pp_rank_1_mp_rank_00_model_states.pt" in caplog.text
    for file in states.iterdir():
        torch.save({}, file)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-1"


@pytest.fixture
def arguments():
    """A function that gives what `check_engine` reads of the arguments: ZeRO stage (0: none) and ranks."""

    def make(stage, ranks):
        engine = SimpleNamespace(is_zero3=lambda: stage == 3)
        deepspeed = "zero.json" if stage else None
        return SimpleNamespace(deepspeed=deepspeed, hf_deepspeed_config=engine, world_size=ranks)

    return make


def write_engine_files(folder, stage, ranks):
    if not stage:
        return folder
    inner = folder / "global_step1"
    inner.mkdir()
    for rank in range(ranks):
        (inner / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
        if stage == 3:
            (inner / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").touch()
    if stage == 2:
        (inner / "mp_rank_00_model_states.pt").touch()
    return folder


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_engine_and_the_ranks_that_saved_a_checkpoint_may_go_on(stage, arguments, make_checkpoint):
    check_engine(write_engine_files(make_checkpoint(1), stage, 2), arguments(stage, 2))


@pytest.mark.parametrize(("before", "now"), [(0, 2), (0, 3), (2, 0), (3, 0), (2, 3), (3, 2)])
def test_another_engines_checkpoint_is_refused(before, now, arguments, make_checkpoint):
    folder = write_engine_files(make_checkpoint(1), before, 2)
    names = {0: "without DeepSpeed", 2: "with DeepSpeed ZeRO-2", 3: "with DeepSpeed ZeRO-3"}
    with pytest.raises(ValueError, match=f"was saved {names[before]}, but this run is {names[now]}"):
        check_engine(folder, arguments(now, 2))


def test_another_number_of_deepspeeds_ranks_is_refused(arguments, make_checkpoint):
    with pytest.raises(ValueError, match="was saved by 2 ranks, but this run has 4"):
        check_engine(write_engine_files(make_checkpoint(1), 3, 2), arguments(3, 4))


def test_a_stray_folder_is_no_checkpoint(tmp_path):
    (tmp_path / "checkpoint-best").mkdir()
    assert last_checkpoint(tmp_path) is None


def test_a_generation_config_that_cannot_be_saved_shows_before_training(stub, tmp_path):
    stub.model.generation_config = GenerationConfig(temperature=0.9, top_p=0.6)
    with pytest.raises(ValueError, match="temperature"):
        rehearse_saving(stub.model, Tokenizer(), tmp_path)


def test_the_rehearsal_leaves_nothing_behind(stub, tmp_path):
    stub.model.generation_config = None
    rehearse_saving(stub.model, Tokenizer(), tmp_path)
    assert list(tmp_path.iterdir()) == []
