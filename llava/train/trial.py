"""One forward and backward of the longest batch before the first step, which leaves no trace in the run.

What would end the run hours later (too little memory, a loss that isn't finite, a batch that can't be made)
ends it in the first minute. The backward is of zero times the loss: engines that keep gradients of their own
(ZeRO) are left with zeros, and everything that it takes is allocated all the same.
"""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.constants import IMAGE_TOKEN_INDEX

logger = logging.getLogger(__name__)


class TrialEndedError(Exception):
    """Training stops after its checks, because only these were asked for."""


class TrialStep(TrainerCallback):
    """Try one batch at the beginning of training, with the model as the engine has wrapped it.

    Every rank tries the same batch, so that all make the same collective calls.
    """

    def __init__(self, trainer: Trainer, samples: list[int], *, stops: bool = False) -> None:
        """Take the indices of the batch's samples; `stops` ends the run after the trial."""
        self.trainer = trainer
        self.samples = samples
        self.stops = stops

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Try the batch; raise `TrialEndedError` if that was all.

        Raises:
            ValueError: the batch doesn't fit into memory, or its loss isn't finite.
        """
        trainer = self.trainer
        dataset: Any = trainer.train_dataset
        batch = trainer.data_collator([dataset[index] for index in self.samples])
        batch.pop("sources", None)
        shape = tuple(batch["input_ids"].shape)
        began = time.perf_counter()
        engine: Any = trainer.model_wrapped
        with _kept_random_state(args.device):
            try:
                loss = _forward_and_backward(trainer, engine, batch)
            except torch.OutOfMemoryError as error:
                raise ValueError(_too_large(args, shape, error)) from error
        engine.zero_grad()
        if not bool(torch.isfinite(loss)):
            raise ValueError(
                f"the loss of the longest batch is {float(loss)} before the first step: the weights hold "
                "numbers that aren't finite, or overflow (use --bf16 True instead of --fp16)"
            )
        logger.info(
            "tried the longest batch, %d samples of up to %d ids (%d with an image): loss %.3f, %.1f s%s",
            shape[0],
            shape[1],
            int((batch["input_ids"] == IMAGE_TOKEN_INDEX).any(1).sum()),
            float(loss),
            time.perf_counter() - began,
            _peak(args.device),
        )
        if self.stops:
            raise TrialEndedError


def _forward_and_backward(trainer: Trainer, engine: Any, batch: dict[str, Any]) -> Tensor:
    engine.train()
    inputs = trainer._prepare_inputs(batch)
    with trainer.compute_loss_context_manager():
        loss = engine(**inputs).loss
    if trainer.is_deepspeed_enabled:
        engine.set_gradient_accumulation_boundary(is_boundary=False)
        engine.backward(0.0 * loss)
    else:
        trainer.accelerator.backward(0.0 * loss)
    return loss.detach().float()


@contextmanager
def _kept_random_state(device: torch.device) -> Iterator[None]:
    """Give all generators their state back, so that the run draws what it would have drawn."""
    numbers, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(numbers)
            np.random.set_state(arrays)


def _too_large(args: TrainingArguments, shape: tuple[int, ...], error: Exception) -> str:
    return (
        f"the longest batch ({shape[0]} samples of up to {shape[1]} ids) doesn't fit into the memory of "
        f"{args.device}: {str(error).splitlines()[0]} Halve --per_device_train_batch_size and double "
        "--gradient_accumulation_steps (in the scripts BATCH does both), use --deepspeed scripts/zero3.json, "
        "--gradient_checkpointing True, or more GPUs"
    )


def _peak(device: torch.device) -> str:
    """Say how much GPU memory the trial took."""
    if device.type != "cuda":
        return ""
    return f", peak {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB of GPU memory"
