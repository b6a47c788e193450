"""Two ranks under torchrun that every distributed test sends its command lines to."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[4]
LAUNCH_SECONDS = 240
RUN_SECONDS = 120


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


class Rank(NamedTuple):
    """How one rank's run ended, and what it saw."""

    code: int
    log: str
    lines: list[dict[str, Any]]

    def seen(self, kind):
        return [line[kind] for line in self.lines if kind in line]


class Ranks:
    """A launch of two ranks; `run` makes them train."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        environment = {
            **os.environ,
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(ROOT),
            "TORCH_EXTENSIONS_DIR": str(folder / "ops"),  # a shared one may hold a killed start's lock
        }
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        worker = str(Path(__file__).with_name("rank.py"))
        self.log = (folder / "launch.log").open("w")
        self.launch = subprocess.Popen(
            [*launcher, worker, str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def run(self, words, *, ranks=2, seconds=RUN_SECONDS, script=None, expect=0, **probe):
        """Run `python -m llava.train WORDS` (or a script) on the ranks and give what each of them saw.

        A rank that needs more than `seconds` prints where it hangs, and fails. Any exit code will do if
        `expect` is None. `probe` are the arguments of probe.install.
        """
        number, self.count = self.count, self.count + 1
        request = {
            "words": list(map(str, words)),
            "ranks": ranks,
            "seconds": seconds,
            "port": free_port(),
            "script": script,
            "probe": probe,
        }
        partial = self.folder / "request.partial"
        partial.write_text(json.dumps(request))
        partial.replace(self.folder / f"request-{number}.json")
        names = [self.folder / f"rank-{number}-{rank}" for rank in range(ranks)]
        end = time.monotonic() + LAUNCH_SECONDS + seconds
        while not all(name.with_suffix(".exit").exists() for name in names):
            if self.launch.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the ranks are gone: {(self.folder / 'launch.log').read_text()[-3000:]}")
            time.sleep(0.05)
        results = [self._read(name) for name in names]
        if expect is not None and any(result.code != expect for result in results):
            logs = [f"rank {rank} ended with {it.code}:\n{it.log[-4000:]}" for rank, it in enumerate(results)]
            pytest.fail("\n".join(logs))
        return results

    def _read(self, name):
        code = json.loads(name.with_suffix(".exit").read_text())["code"]
        record = name.with_suffix(".jsonl")
        lines = record.read_text().splitlines() if record.exists() else []
        return Rank(code, name.with_suffix(".log").read_text(), [json.loads(line) for line in lines])

    def stop(self):
        (self.folder / "stop").touch()
        try:
            self.launch.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.launch.pid, signal.SIGKILL)
        self.log.close()


@pytest.fixture(scope="session")
def ranks(tmp_path_factory):
    """Two ranks, waiting for command lines."""
    pytest.importorskip("deepspeed", reason="the extra `train` is not installed")
    launched = Ranks(tmp_path_factory.mktemp("ranks"))
    yield launched
    launched.stop()


@functools.cache
def zero_file(stage, folder):
    """Write scripts/STAGE.json so that a tiny model's parameters are really split and gathered.

    With the thresholds as they are, every parameter of a tiny model would be kept whole on every rank, and
    nothing would be proven.
    """
    sections = json.loads((ROOT / "scripts" / f"{stage}.json").read_text())
    if "3" in stage:
        sections["zero_optimization"] |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_prefetch_bucket_size": 0,
        }
    if "offload" in stage:  # torch's Adam instead of DeepSpeed's own, which would be compiled for minutes
        sections["zero_force_ds_cpu_optimizer"] = False
    file = folder / f"{stage}.json"
    file.write_text(json.dumps(sections))
    return file


def record(name, *turns, image=None):
    """Write a sample of LLaVA's format: turns are question, answer, question, ..."""
    speakers = ("human", "gpt")
    said = [{"from": speakers[index % 2], "value": text} for index, text in enumerate(turns)]
    return {"id": name, "conversations": said} | ({} if image is None else {"image": f"{image}.png"})


def with_image(name, image):
    return record(name, f"<image>\nWhat is number {name}?", f"Colour number {image}.", image=image)


def text_only(name):
    return record(name, f"Say word {name}, please.", f"Word {name}.")


@pytest.fixture(scope="session")
def mixed(world):
    """Sixteen samples for two ranks with batches of two; the second rank's first batch is text only."""
    samples = [
        *(with_image("a", 0), with_image("b", 1), text_only("c"), text_only("d")),
        *(with_image("e", 2), text_only("f"), with_image("g", 3), with_image("h", 4)),
        *(with_image("i", 5), with_image("j", 0), text_only("k"), with_image("l", 1)),
        *(text_only("m"), text_only("n"), with_image("o", 2), with_image("p", 3)),
    ]
    file = world / "mixed.json"
    file.write_text(json.dumps(samples))
    return file


@pytest.fixture(scope="session")
def uneven(world):
    """Seventeen samples for two ranks with batches of two, which give the ranks as different work as can be.

    At --model_max_length 130, `late` loses its image and `cut` its answer. The last batch is incomplete.
    """
    long = "word " * 60
    images = iter(range(100))

    def seen():
        number = next(images)
        return with_image(f"seen {number}", number % 6)

    def late():
        turns = (f"Say it {long}", "Yes.", "<image>\nAnd this?", "Colour.")
        return record(f"late {next(images)}", *turns, image=1)

    def cut():
        return record(f"cut {next(images)}", f"<image>\n{long}", "Answer.", image=2)

    def said():
        return text_only(f"said {next(images)}")

    samples = [
        *(seen(), seen(), said(), said()),  # rank 1 has text only
        *(late(), said(), seen(), seen()),  # rank 0 has no visual token left
        *(cut(), cut(), seen(), said()),  # rank 0 has nothing to learn
        *(late(), late(), said(), cut()),
        seen(),  # one sample for two ranks
    ]
    file = world / "uneven.json"
    file.write_text(json.dumps(samples))
    return file


@pytest.fixture(scope="session")
def in_order(command, mixed):
    """Make the command line of a run that takes samples (of `mixed`, if no others are named) in order."""

    def make(output, *words, stage=2):
        settings = ("--train_sampling_strategy", "sequential", "--ddp_timeout", "100", "--use_cpu", "False")
        taken = () if stage == 1 else ("--data_path", mixed)
        return [*command(output, *taken, *settings, stage=stage), *words]

    return make


@pytest.fixture(scope="session")
def configs(tmp_path_factory):
    """Give the path of a DeepSpeed file, by stage: zero2, zero3, zero3_offload."""
    return functools.partial(zero_file, folder=tmp_path_factory.mktemp("zero"))
