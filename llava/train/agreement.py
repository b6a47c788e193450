"""What all ranks must agree on before anything is loaded: settings, output folder, checkpoint to go on from.

Machines are started one by one, each with flags, variables and disks of its own. Ranks that differ in a flag
make other collective calls and wait for each other without end; a machine that doesn't see the others'
output folder writes its part of a checkpoint where nobody finds it.
"""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import distributed

from llava.train.arguments import TrainingArguments

_SHARED = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "bf16",
    "fp16",
    "max_grad_norm",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "logging_steps",
    "save_strategy",
    "save_steps",
    "preflight_only",
)
"""Flags beside the run's fingerprint that decide how often ranks call each other."""


class Rank(NamedTuple):
    """What one rank says of itself."""

    number: int
    machine: str
    settings: Mapping[str, Any]
    sees_folder: bool
    """Whether a file that the first rank has just written is there for it, too."""
    checkpoint: str | None
    """The complete checkpoint that it would go on from."""


def agree(
    settings: Mapping[str, Any], training: TrainingArguments, output_dir: Path, checkpoint: Path | None
) -> None:
    """Compare all ranks; every one must call it, and one process has nothing to compare.

    Args:
        settings: the run's fingerprint on this rank.
        training: the other flags.
        output_dir: as this rank names it.
        checkpoint: that this rank found there.

    Raises:
        ValueError: on all ranks, if one differs from the first in anything.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or training.world_size == 1:
        return
    is_first = training.process_index == 0
    names: list[str] = [f".ranks-{secrets.token_hex(8)}"]
    distributed.broadcast_object_list(names, src=0)
    sign = output_dir / names[0]
    if is_first:
        sign.touch()
    try:
        distributed.barrier()
        own = Rank(
            training.process_index,
            socket.gethostname(),
            {**settings, **shared_flags(training)},
            sign.exists(),
            checkpoint.name if checkpoint else None,
        )
        ranks: list[Any] = [None] * training.world_size
        distributed.all_gather_object(ranks, own)
    finally:
        if is_first:
            sign.unlink(missing_ok=True)
    found = disagreements(ranks)
    if found:
        raise ValueError(
            f"the ranks of this run differ: {'; '.join(found)}. Start all machines with the same flags and "
            "variables, on a disk that all of them see"
        )


def shared_flags(training: TrainingArguments) -> dict[str, Any]:
    """Give the flags that decide how often ranks call each other, and what the --deepspeed file says."""
    zero = training.deepspeed
    text = Path(zero).read_text(encoding="utf-8") if isinstance(zero, str) and os.path.isfile(zero) else zero  # noqa: PTH113
    return {name: str(getattr(training, name, None)) for name in _SHARED} | {"deepspeed": text}


def disagreements(ranks: Sequence[Rank]) -> list[str]:
    """Say in what ranks differ from the first one, once per machine and thing."""
    first, *others = ranks
    found: dict[str, None] = {}  # in order, without repetitions
    for rank in others:
        where = f"rank {rank.number} on {rank.machine}"
        if not rank.sees_folder:
            found[f"{where} doesn't see the first rank's --output_dir (on {first.machine})"] = None
        elif rank.checkpoint != first.checkpoint:
            found[f"{where} finds {rank.checkpoint} to go on from, the first one {first.checkpoint}"] = None
        for name, value in first.settings.items():
            if rank.settings.get(name) != value:
                found[f"{where} has {name} {rank.settings.get(name)!r:.60}, the first one {value!r:.60}"] = (
                    None
                )
    return list(found)
