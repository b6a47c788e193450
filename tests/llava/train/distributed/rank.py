"""One rank of the distributed tests: what torchrun starts, once for all tests.

It imports what training needs, and then answers requests: for each it forks a process that runs
`python -m llava.train` with the request's words, as rank R of the launch or alone. So a launch's twenty
seconds are paid once, every run has a process of its own, and any of them may be killed.

    request-N.json    {"words": [...], "ranks": 2, "seconds": 60, "probe": {...}}
    rank-N-R.log      what the run printed
    rank-N-R.jsonl    what tests/llava/train/distributed/probe.py saw, line by line
    rank-N-R.exit     how it ended, written last
"""

import contextlib
import faulthandler
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path

import deepspeed  # noqa: F401 - imported once for all requests
import torch

from tests.llava.train.distributed.probe import install

STEP = 0.02
LAUNCHER = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_WORLD_SIZE", "ROLE_RANK")


def serve(folder):
    rank = int(os.environ["RANK"])
    number = 0
    while True:
        file = folder / f"request-{number}.json"
        while not file.exists():
            if (folder / "stop").exists() or os.getppid() == 1:
                return
            time.sleep(STEP)
        request = json.loads(file.read_text())
        if rank < request["ranks"]:
            answer(folder, number, rank, request)
        number += 1


def answer(folder, number, rank, request):
    """Run a request in a process of its own; end it when another rank's has failed, as torchrun would."""
    name = folder / f"rank-{number}-{rank}"
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        work(name, request)
    code = None
    while code is None:
        time.sleep(STEP)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
        elif any(failed(folder / f"rank-{number}-{other}.exit") for other in range(request["ranks"])):
            os.kill(pid, signal.SIGTERM)
            request = {**request, "ranks": 0}
    result = {"code": code, "seconds": time.monotonic() - started}
    partial = name.with_suffix(".partial")
    partial.write_text(json.dumps(result))
    partial.replace(name.with_suffix(".exit"))


def failed(file):
    return file.exists() and json.loads(file.read_text())["code"] != 0


def work(name, request):
    """Be a rank, in a forked process that never returns."""
    code = 1
    try:
        with Path(f"{name}.log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        faulthandler.dump_traceback_later(request["seconds"], exit=True)  # the watchdog
        # A meeting place of its own: in torchrun's one, every request would find the last one's addresses.
        os.environ |= {"TORCHELASTIC_USE_AGENT_STORE": "False", "MASTER_PORT": str(request["port"])}
        if request["ranks"] == 1:
            for variable in LAUNCHER:
                del os.environ[variable]
        code = run(request, Path(f"{name}.jsonl"))
    except BaseException:  # noqa: BLE001 - it goes to the log, and the test shows that
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(request, record):
    torch.manual_seed(0)
    install(record, **request["probe"])
    sys.argv = ["llava.train", *request["words"]]
    try:
        if request["script"]:
            runpy.run_path(request["script"], run_name="__main__")
        else:
            runpy.run_module("llava.train", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        with contextlib.suppress(TypeError):
            return int(ended.code or 0)
        sys.stderr.write(f"{ended.code}\n")
        return 1
    return 0


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
