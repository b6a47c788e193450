"""Two launches of the training script that meet on this machine, as on two machines of a cluster."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parents[3]
SECONDS = 240


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


@pytest.fixture
def variables(world, tmp_path):
    """The script's variables for the small world, on CPUs without DeepSpeed."""
    paths = {
        "BASE": world / "base",
        "VISION_TOWER": world / "tower",
        "DATA": world / "stage2.json",
        "IMAGES": world / "images",
        "OUTPUT": tmp_path / "out",
    }
    settings = {"PROJECTOR": "none", "ZERO": "none", "BF16": "False", "TF32": "False", "WORKERS": "0"}
    settings |= {"GRADIENT_CHECKPOINTING": "False", "MAX_STEPS": "2", "BATCH": "2", "GLOBAL_BATCH": "4"}
    settings |= {"DPN_LAYERS": "1,2", "SAVE_STEPS": "2", "LEARNING_RATE": "1e-3"}
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    return os.environ | {name: str(path) for name, path in paths.items()} | settings | quiet


def launch(variables, **more):
    return subprocess.Popen(
        ["bash", str(ROOT / "scripts/finetune_dpn.sh"), "--ddp_timeout", "60", "--disable_tqdm", "True"],
        env=variables | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(*launches):
    try:
        return [process.communicate(timeout=SECONDS)[0] for process in launches]
    finally:
        for process in launches:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def losses(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [line["loss"] for line in history if "loss" in line]


def test_two_machines_train_as_one_does_with_the_same_global_batch(variables, tmp_path):
    meeting = {"NNODES": "2", "GPUS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    meeting |= {"LAUNCHER": "torchrun", "REDUCTION": "train_choice=static eval_choice=static route=1x2,2x2"}
    both = [launch(variables, **meeting, NODE_RANK=rank) for rank in "01"]
    first, second = finish(*both)
    assert [process.returncode for process in both] == [0, 0], first + second
    assert "estimate per GPU: 2 GPU(s), no ZeRO, micro batch 2" in first
    assert "estimate per GPU" not in second  # the first rank of all machines speaks, and it alone
    alone = {"LAUNCHER": "none", "GPUS": "1", "BATCH": "4", "OUTPUT": str(tmp_path / "one")}
    (shown,) = finish(launch(variables, **alone, REDUCTION=meeting["REDUCTION"]))
    assert losses(tmp_path / "out") == pytest.approx(losses(tmp_path / "one"), abs=1e-4), shown
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "one"))
    assert all((ours[name] - theirs[name]).abs().max() < 2e-4 for name in theirs)
    line = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"][0]
    assert line["share_1x2@1"] == 1  # the numbers of both ranks
    assert line["tokens_per_second"] > 0


def test_machines_that_were_started_with_other_settings_are_told_before_anything_is_loaded(
    variables, tmp_path
):
    meeting = {"NNODES": "2", "GPUS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    meeting |= {"LAUNCHER": "torchrun"}
    other = {"OUTPUT": str(tmp_path / "other"), "LEARNING_RATE": "2e-3", "SAVE_STEPS": "1"}
    both = [launch(variables, **meeting, NODE_RANK="0"), launch(variables, **meeting, **other, NODE_RANK="1")]
    first, _ = finish(*both)
    assert all(process.returncode != 0 for process in both)
    assert "doesn't see the first rank's --output_dir" in first
    assert "has learning_rate 0.002, the first one 0.001" in first
    assert "has save_steps '1" in first
    assert "Start all machines with the same flags and variables" in first
    assert "part" not in [
        line[:4] for line in first.splitlines()
    ]  # the table of what learns: nothing was built
    assert not list((tmp_path / "out").glob(".ranks-*"))
