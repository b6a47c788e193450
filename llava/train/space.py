"""Whether the disk takes what a run is going to keep; asked before anything is loaded."""

import math
import shutil
from pathlib import Path
from typing import NamedTuple

from llava.train.arguments import TrainingArguments
from llava.train.checkpoint import is_usable, numbered
from llava.train.footprint import Counts, Engine, checkpoint_bytes, readable
from llava.train.saving import reclaimable


class Space(NamedTuple):
    """What a run writes, in bytes."""

    checkpoint: float
    result: float
    num_checkpoints: int
    """Checkpoints that lie on the disk at the same time, beyond those that are there."""

    @property
    def total(self) -> float:
        """Bytes in all."""
        return self.num_checkpoints * self.checkpoint + self.result


def needed_space(counts: Counts, training: TrainingArguments, engine: Engine, num_samples: int) -> Space:
    """Compute what a run on so many samples will write to its output folder."""
    checkpoint, result = checkpoint_bytes(counts, training, engine)
    there = sum(map(is_usable, numbered(Path(training.output_dir or "")).values()))
    saves = num_saves(training, engine.world_size, num_samples)
    limit = training.save_total_limit
    kept = saves if limit is None else min(saves, limit + 1)  # the next is written before the oldest goes
    return Space(checkpoint, result, max(kept - there, min(saves, 1)))


def num_saves(training: TrainingArguments, world_size: int, num_samples: int) -> int:
    """Count the checkpoints that a run writes, as transformers does: every so often and at the end."""
    strategy = str(getattr(training.save_strategy, "value", training.save_strategy))
    if strategy == "no":
        return 0
    batch = training.train_batch_size * training.gradient_accumulation_steps * world_size
    per_epoch = max(1, math.ceil(num_samples / batch))
    steps = training.max_steps if training.max_steps > 0 else per_epoch * training.num_train_epochs
    if strategy == "epoch":
        return math.ceil(steps / per_epoch)
    every = (
        training.save_steps if training.save_steps >= 1 else max(1, math.ceil(training.save_steps * steps))
    )
    return math.ceil(steps / every)


def check_space(space: Space, output_dir: Path, save_total_limit: int | None) -> None:
    """Refuse a disk on which saving would fail in the middle of the run.

    Raises:
        ValueError: less is free than the checkpoints and the result take.
    """
    free = shutil.disk_usage(output_dir).free + reclaimable(output_dir)
    if space.total <= free:
        return
    kept = "all of them" if save_total_limit is None else f"{save_total_limit} and the one being written"
    raise ValueError(
        f"--output_dir {output_dir}: {readable(free)} are free there, and this run needs about "
        f"{readable(space.total)}: {space.num_checkpoints} checkpoints of "
        f"{readable(space.checkpoint)} (kept: {kept}) and a result of {readable(space.result)}. Make "
        "room, choose another disk, or keep less (--save_total_limit 1, a larger --save_steps)"
    )
