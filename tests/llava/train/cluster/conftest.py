"""A training run that two machines share, and the same one in a single process."""

import os
import subprocess

import pytest

from tests.llava.train.cluster.machines import CPU_RANKS, ROOT, require, tail, two_machines
from tests.llava.train.cluster.runs import NO_PROGRESS, STEPS

FORCED = "train_choice=static eval_choice=static route=1x2,2x2"


@pytest.fixture
def machines(tmp_path):
    require("iproute2", "util-linux")
    with two_machines(tmp_path) as both:
        yield both


@pytest.fixture
def variables(world, tmp_path):
    """What scripts/finetune_dpn.sh reads: the small world, one rank on each of two machines, ZeRO-3."""
    paths = {"BASE": "base", "VISION_TOWER": "tower", "DATA": "stage2.json", "IMAGES": "images"}
    settings = {"PROJECTOR": "none", "BF16": "False", "TF32": "False", "WORKERS": "0", "GPUS": "1"}
    settings |= {"GRADIENT_CHECKPOINTING": "False", "MAX_STEPS": STEPS, "BATCH": "2", "GLOBAL_BATCH": "4"}
    settings |= {"DPN_LAYERS": "1,2", "SAVE_STEPS": "2", "LEARNING_RATE": "1e-3", "REDUCTION": FORCED}
    settings |= {name: world / path for name, path in paths.items()} | {"OUTPUT": tmp_path / "out"}
    return {name: str(value) for name, value in (settings | CPU_RANKS).items()}


@pytest.fixture
def alone(variables, tmp_path):
    """Losses and weights of one process with the same global batch."""
    more = {"LAUNCHER": "none", "ZERO": "none", "BATCH": "4", "OUTPUT": str(tmp_path / "alone")}
    words = ["bash", str(ROOT / "scripts/finetune_dpn.sh"), *NO_PROGRESS]
    with (tmp_path / "alone.log").open("w") as log:
        done = subprocess.run(words, env=os.environ | variables | more, stdout=log, stderr=log, check=False)
    assert done.returncode == 0, tail(tmp_path / "alone.log")
    return tmp_path / "alone"
