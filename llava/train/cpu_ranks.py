"""DeepSpeed between processes on CPUs, which accelerate and transformers don't set up by themselves.

Without a GPU, accelerate looks for a backend, finds none, and takes every process for the only one. Both
libraries let a caller connect the processes first (`PartialState(backend=...)`) and then use what is there
(`use_configured_state`), which is all this file does.
"""

import os
from datetime import timedelta
from typing import Any

from llava.deepspeed_ops import leave_out_inference_op

_ASKED = "ACCELERATE_USE_DEEPSPEED"


def connect(timeout: int) -> dict[str, Any]:
    """Connect the processes that a launcher has started on this machine's CPUs, for DeepSpeed over gloo.

    Args:
        timeout: seconds after which a rank that waits for the others gives up.

    Returns:
        What `--accelerator_config` must say for transformers to use the connection.

    Raises:
        ValueError: no launcher has started this process.
    """
    from accelerate import PartialState  # noqa: PLC0415 - `--help` and the checks do without

    if "LOCAL_RANK" not in os.environ:
        raise ValueError(
            "--deepspeed on a CPU needs a launcher, also for one process: "
            "torchrun --standalone --nproc_per_node 1 -m llava.train ..."
        )
    leave_out_inference_op()
    os.environ[_ASKED] = "true"  # as transformers itself does, for this call only
    try:
        PartialState(backend="gloo", timeout=timedelta(seconds=timeout))
    finally:
        del os.environ[_ASKED]
    return {"use_configured_state": True}
