import pytest

from llava.train.__main__ import main
from llava.train.cpu_ranks import connect


def test_a_process_that_no_launcher_started_is_told_how_to_start_one(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(ValueError, match="needs a launcher, also for one process: torchrun --standalone"):
        connect(60)


def test_the_command_line_says_it_in_one_line(monkeypatch, command, tmp_path):
    pytest.importorskip("deepspeed", reason="the extra `train` is not installed")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"python -m llava\.train: --deepspeed on a CPU needs a launcher"):
        main(command(tmp_path, "--deepspeed", "scripts/zero3.json"))
