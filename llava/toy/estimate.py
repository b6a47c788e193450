"""`python -m llava.toy.estimate`: how long the quickstart takes on this machine, in seconds.

It times a training step of a model of the small world's size and multiplies by what the whole job was
measured to cost in such steps.
"""

import statistics
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

STEPS_IN_ALL = 765
"""Cost of the whole quickstart in steps of this probe."""
BATCH, LENGTH = 48, 192


def seconds_per_step() -> float:
    """Time forward and backward of one batch: the median of three after a warm-up."""
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=8,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LlamaForCausalLM(config)
    model.to(device)  # pyright: ignore[reportArgumentType] - its stub is wrong
    ids = torch.randint(3, 500, (BATCH, LENGTH), device=device)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


if __name__ == "__main__":
    sys.stdout.write(f"{max(60, round(seconds_per_step() * STEPS_IN_ALL))}\n")
