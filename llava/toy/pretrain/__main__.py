"""`python -m llava.toy.pretrain --output llava/toy/base`: make the tower and the base of the small world."""

import argparse
import functools
import time
from dataclasses import replace
from pathlib import Path

import torch

from llava.toy.pretrain.clip import train_tower
from llava.toy.pretrain.llama import CURRICULUM, train_base


def main() -> None:
    """Parse the command line, train what is asked for, and print how good it became."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.toy.pretrain", description="Pre-train the small world."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for clip-tiny/ and vicuna-tiny/")
    parser.add_argument("--seed", type=int, default=0, help="added to the seed of every phase")
    parser.add_argument("--only", choices=("clip-tiny", "vicuna-tiny"), help="train one of the two")
    parser.add_argument("--tower-steps", type=int, default=1500)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the last digits depend on it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = functools.partial(print, flush=True)
    curriculum = [replace(phase, seed=phase.seed + arguments.seed) for phase in CURRICULUM]
    jobs = {
        "clip-tiny": lambda folder: train_tower(
            folder, seed=arguments.seed, steps=arguments.tower_steps, report=report
        ),
        "vicuna-tiny": lambda folder: train_base(folder, report, curriculum=curriculum),
    }
    for name, train in jobs.items():
        if arguments.only in (None, name):
            began = time.monotonic()
            quality = train(arguments.output / name)
            shares = ", ".join(f"{kind} {share:.3f}" for kind, share in quality.items())
            report(f"{name}: {time.monotonic() - began:.0f} s, accuracy on fresh boards: {shares}")


if __name__ == "__main__":
    main()
