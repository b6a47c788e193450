"""Take the projector out of a full checkpoint (`scripts/extract_mm_projector.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from llava.model.files import checkpoint_directory, read_matching


def main(argv: Sequence[str] | None = None) -> None:
    """Write mm_projector.bin as the command line says; upstream's flags, and safetensors are read, too.

    Raises:
        ValueError: there is no checkpoint, or it holds no projector.
    """
    parser = argparse.ArgumentParser(prog="scripts/extract_mm_projector.py")
    parser.add_argument(
        "--model-path", "--model_path", "--model_name_or_path", required=True, help="full checkpoint"
    )
    parser.add_argument("--output", required=True, type=Path, help="file to write, such as mm_projector.bin")
    arguments = parser.parse_args(argv)
    folder = checkpoint_directory(arguments.model_path)
    if not folder.is_dir():
        raise ValueError(f"--model-path must be a local directory, got {arguments.model_path}")
    weights = read_matching(str(folder), "mm_projector")
    if not weights:
        raise ValueError(f"{folder} holds no mm_projector: a text-only model, or one in HF format")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: value.contiguous() for name, value in weights.items()}, arguments.output)
