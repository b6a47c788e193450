"""Training steps under ZeRO on several ranks: starting them, wrapping a model, joining their numbers.

Shapes: R ranks, B samples of a rank, S DPE layers.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from llava.bench.arguments import BenchArguments
from llava.bench.inputs import Batch
from llava.bench.timing import Samples
from llava.bench.variants import Routes
from llava.deepspeed_ops import leave_out_inference_op


def is_rank() -> bool:
    """Tell whether a launcher has started this process."""
    return "LOCAL_RANK" in os.environ


def is_first() -> bool:
    """Tell whether this process reports: the first rank, or the only process."""
    return int(os.environ.get("RANK", "0")) == 0


def launch(words: Sequence[str], arguments: BenchArguments) -> None:
    """Start this benchmark again as `--ranks` processes on this machine, and wait for their end.

    Raises:
        ValueError: DeepSpeed is missing, there are too few GPUs, or a rank has failed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError("--zero: DeepSpeed is not installed; run `bash scripts/setup.sh train`")
    is_cuda = arguments.torch_device.type == "cuda"
    if is_cuda and torch.cuda.device_count() < arguments.ranks:
        raise ValueError(
            f"--ranks {arguments.ranks} needs as many GPUs, and there are {torch.cuda.device_count()}; "
            "--device cpu runs without"
        )
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(arguments.ranks)]
    variables = {} if is_cuda else {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    if "PYTHONWARNINGS" not in os.environ:  # torch would print one for every collective call, in the clock
        variables["PYTHONWARNINGS"] = "ignore::FutureWarning"
    done = subprocess.run(
        [sys.executable, *starter, "-m", "llava.bench", *words], env=os.environ | variables, check=False
    )
    if done.returncode:
        raise ValueError(f"a rank has failed; what it said stands above ({' '.join(words)})")


def connect(arguments: BenchArguments) -> None:
    """Connect this rank with the others: NCCL between GPUs, else gloo."""
    import deepspeed  # noqa: PLC0415 - an extra

    is_cuda = arguments.torch_device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        leave_out_inference_op()
    deepspeed.init_distributed(dist_backend="nccl" if is_cuda else "gloo", verbose=False)


def leave() -> None:
    """End this rank at once: an interpreter that shuts down between gloo's threads aborts now and then."""
    dist.barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def own_part(batch: Batch, routes: Routes | None) -> tuple[Batch, Routes | None]:
    """Take this rank's B samples of a batch of R x B, and their routes (B, S)."""
    size = batch.size // dist.get_world_size()
    own = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
    merged = {name: value[own] for name, value in batch.merged.items()}
    plain = {name: merged[name] for name in batch.plain}
    labels = None if batch.labels is None else batch.labels[own]
    part = replace(batch, ours=merged, merged=merged, reference=plain, labels=labels, size=size)
    return part, None if routes is None else routes[own]


def engine_of(model: nn.Module, arguments: BenchArguments) -> Any:
    """Split a model's weights, gradients and optimizer over the ranks, with the sizes of scripts/zero*.json.

    The model's own parameters become parts of what they were; the engine takes its place in a step. The
    optimizer has a rate of 0 and no state, so that its steps (outside the clock) change nothing.
    """
    import deepspeed  # noqa: PLC0415 - an extra

    width = arguments.shape.hidden_size
    zero = {
        "stage": arguments.zero,
        "overlap_comm": arguments.torch_device.type == "cuda",
        "contiguous_gradients": True,
        "reduce_bucket_size": width * width,
        "stage3_prefetch_bucket_size": int(0.9 * width * width),
        "stage3_param_persistence_threshold": 10 * width,
    }
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": arguments.torch_dtype is torch.bfloat16},
    }
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    return engine


def joined(samples: dict[str, Samples]) -> dict[str, Samples]:
    """Bring all ranks' samples together: a step ends with its last rank, processor time adds up.

    The device's peaks are left out: they hold the weights of every variant's engine.
    """
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, samples)
    found = {}
    for name, own in samples.items():
        ranks: list[Samples] = [rank[name] for rank in every]
        found[name] = Samples(
            wall=np.max([rank.wall for rank in ranks], axis=0).tolist(),
            cpu=np.sum([rank.cpu for rank in ranks], axis=0).tolist(),
            extra={key: np.mean([rank.extra[key] for rank in ranks], axis=0).tolist() for key in own.extra},
        )
    return found


def largest(memory: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Give every figure of the rank that has the most of it."""
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, memory)
    return {
        name: {key: max(rank[name][key] for rank in every) for key in own} for name, own in memory.items()
    }
