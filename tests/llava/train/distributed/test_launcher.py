"""Nothing in between: torchrun starts `python -m llava.train`, and a rank is killed from outside.

Minutes on two cores, because DeepSpeed compiles an op at its first start and imports are paid per process.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.llava.train.distributed.results import check_equal

ROOT = Path(__file__).parents[4]
SECONDS = 900
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "llava.train"]
DPN = ["--reduction", "dpn", "layers=1,2", "preset=policy", "budget=0.5"]

pytestmark = [pytest.mark.soak, pytest.mark.timeout(4 * SECONDS)]


@pytest.fixture(scope="module", autouse=True)
def own_compiled_ops(tmp_path_factory):
    """A folder of its own for what is compiled: in a shared one, a start that was killed leaves a lock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("ops")))
        yield


def start(words, log):
    variables = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, *LAUNCHER, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def ranks_of(launch):
    """List the process ids of a launch's ranks, by its children."""
    children = Path(f"/proc/{launch.pid}/task/{launch.pid}/children").read_text().split()
    return [int(child) for child in children if b"llava.train" in Path(f"/proc/{child}/cmdline").read_bytes()]


def finish(words, log):
    assert start(words, log).wait(SECONDS) == 0, log.read_text()[-5000:]


@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_a_rank_killed_from_outside_ends_the_launch_and_the_same_command_goes_on(
    zero, in_order, configs, tmp_path
):
    steps = ["--max_steps", 40, "--save_strategy", "steps", "--save_steps", 10, "--save_total_limit", 2]
    settings = [*steps, "--per_device_train_batch_size", 2, "--deepspeed", configs(zero), *DPN]
    finish(in_order(tmp_path / "whole", *settings), tmp_path / "whole.log")
    words = in_order(tmp_path / "killed", *settings)
    launch = start(words, tmp_path / "killed.log")
    end = time.monotonic() + SECONDS
    while not (tmp_path / "killed" / "checkpoint-20").exists():
        assert launch.poll() is None, (tmp_path / "killed.log").read_text()[-5000:]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(ranks_of(launch)[1], signal.SIGKILL)
    assert launch.wait(120) != 0
    assert not (tmp_path / "killed" / "trainer_state.json").exists()
    finish(words, tmp_path / "resumed.log")
    assert "going on from" in (tmp_path / "resumed.log").read_text()
    check_equal(tmp_path / "killed", tmp_path / "whole")


def test_the_offload_file_as_it_is_trains_with_deepspeeds_own_adam(in_order, tmp_path):
    words = in_order(tmp_path / "out", "--max_steps", 3, "--deepspeed", "scripts/zero3_offload.json", *DPN)
    finish(words, tmp_path / "log")
    assert (tmp_path / "out" / "model.safetensors").is_file()
