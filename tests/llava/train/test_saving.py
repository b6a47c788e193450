import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from llava.train import saving
from llava.train.checkpoint import last_checkpoint


def write(folder):
    """Write what makes a folder a complete checkpoint."""
    (folder / "inner").mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "inner/states.pt"):
        torch.save({}, folder / name)
    (folder / "trainer_state.json").write_text('{"global_step": 1, "max_steps": 9, "num_train_epochs": 1}')
    return folder


@pytest.fixture
def model():
    made = nn.Module()
    made.reducer = nn.Module()
    made.reducer.register_buffer("mu", torch.tensor(0.25))
    made.reducer.register_buffer("count", torch.tensor(3))
    made.register_buffer("other", torch.tensor(1.0))
    return made


def test_a_checkpoint_is_not_there_until_it_is_published(tmp_path):
    write(saving.unfinished(tmp_path) / "checkpoint-3")
    assert last_checkpoint(tmp_path) is None
    saving.publish("checkpoint-3", tmp_path)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert (tmp_path / "checkpoint-3" / "inner" / "states.pt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_an_incomplete_checkpoint_of_the_same_step_is_replaced(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "left").touch()
    write(saving.unfinished(tmp_path) / "checkpoint-3")
    saving.publish("checkpoint-3", tmp_path)
    assert not (tmp_path / "checkpoint-3" / "left").exists()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


@pytest.mark.parametrize(("limit", "left"), [(1, [10]), (2, [9, 10]), (None, [8, 9, 10]), (0, [8, 9, 10])])
def test_the_newest_checkpoints_by_number_are_kept(limit, left, tmp_path):
    for step in (8, 9, 10):
        write(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-best").mkdir()
    saving.keep_newest(tmp_path, limit)
    kept = sorted(int(folder.name[11:]) for folder in tmp_path.glob("checkpoint-*[0-9]"))
    assert kept == left
    assert (tmp_path / "checkpoint-best").is_dir()


def test_what_cannot_be_used_pushes_no_good_checkpoint_out(tmp_path):
    for step in (1, 2, 3):
        write(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-1" / "scheduler.pt").unlink()
    (tmp_path / "checkpoint-99").mkdir()
    (tmp_path / "checkpoint-100").touch()
    saving.keep_newest(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-100",
        "checkpoint-3",
        "checkpoint-99",
    ]
    (tmp_path / "checkpoint-3" / "optimizer.pt").unlink()
    saving.keep_newest(tmp_path, 1)
    assert (tmp_path / "checkpoint-3").is_dir()


def test_what_clearing_will_free_is_counted(tmp_path):
    assert saving.reclaimable(tmp_path) == 0
    write(saving.unfinished(tmp_path) / "checkpoint-3")
    assert saving.reclaimable(tmp_path) > 0
    saving.clear(tmp_path)
    assert saving.reclaimable(tmp_path) == 0


def test_a_checkpoint_loses_its_name_before_its_files(tmp_path, monkeypatch):
    for step in (1, 2):
        write(tmp_path / f"checkpoint-{step}")
    monkeypatch.setattr(saving.shutil, "rmtree", lambda *_, **__: None)  # killed before anything was deleted
    saving.keep_newest(tmp_path, 1)
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_what_an_interrupted_run_left_is_cleared(tmp_path):
    write(saving.unfinished(tmp_path) / "checkpoint-3")
    saving.clear(tmp_path)
    saving.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def fill_the_disk():
    Path("/dev/full").write_text("x")


def fill_it_with_torch():
    with Path("/dev/full").open("wb") as file:
        torch.save(torch.zeros(100_000), file)


def fill_it_by_path():
    torch.save(torch.zeros(100_000), "/dev/full")


@pytest.mark.parametrize("failing", [fill_the_disk, fill_it_with_torch, fill_it_by_path])
def test_a_full_disk_is_an_error_that_says_what_is_left_and_what_to_do(failing, tmp_path):
    kept = write(tmp_path / "checkpoint-3")
    write(saving.unfinished(tmp_path) / "checkpoint-4")
    with (
        pytest.raises(ValueError, match=rf"failed: .*GiB free\)\. {kept} is complete; make room and start"),
        saving.refusing_half_saves(tmp_path, is_writer=True),
    ):
        failing()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_the_first_checkpoint_that_fails_says_that_there_is_none(tmp_path):
    with (
        pytest.raises(ValueError, match="There is no complete checkpoint yet"),
        saving.refusing_half_saves(tmp_path, is_writer=False),
    ):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@pytest.mark.parametrize("message", ["collective mismatch", "No space left in the cache of a kernel"])
def test_other_errors_of_saving_stay_what_they_are_whatever_they_say(message, tmp_path):
    write(saving.unfinished(tmp_path) / "checkpoint-4")
    with pytest.raises(RuntimeError, match=message), saving.refusing_half_saves(tmp_path, is_writer=True):
        raise RuntimeError(message)
    assert (tmp_path / ".unfinished" / "checkpoint-4").is_dir()


def test_the_routing_state_comes_back_in_the_dtype_it_had(model, tmp_path):
    saving.save_buffers(model, tmp_path, 1)
    saving.save_buffers(model, tmp_path, 0)
    model.reducer.mu = torch.tensor(0.5, dtype=torch.bfloat16)
    model.reducer.count = torch.tensor(9)
    model.other = torch.tensor(7.0)
    saving.load_buffers(model, tmp_path, 1)
    assert model.reducer.mu.dtype == torch.float32
    assert (model.reducer.mu.item(), model.reducer.count.item(), model.other.item()) == (0.25, 3, 7.0)


def test_a_rank_that_was_not_there_takes_the_first_ones_state(model, tmp_path, caplog):
    saving.save_buffers(model, tmp_path, 0)
    model.reducer.mu.fill_(0.5)
    saving.load_buffers(model, tmp_path, 3)
    assert model.reducer.mu.item() == 0.25
    assert "rank 3 takes the first one's routing state" in caplog.text


def test_a_checkpoint_without_the_routing_state_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"lacks routing_state_0\.pt"):
        saving.load_buffers(model, tmp_path, 0)


def test_another_models_routing_state_is_refused(model, tmp_path):
    saving.save_buffers(model, tmp_path, 0)
    model.reducer.register_buffer("window", torch.zeros(2))
    with pytest.raises(ValueError, match="belongs to another run"):
        saving.load_buffers(model, tmp_path, 0)


def test_a_model_without_such_a_state_writes_and_needs_no_file(tmp_path):
    saving.save_buffers(nn.Linear(2, 2), tmp_path, 0)
    saving.load_buffers(nn.Linear(2, 2), tmp_path, 0)
    assert list(tmp_path.iterdir()) == []
