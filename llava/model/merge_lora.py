"""Write a LoRA directory and its base as one full checkpoint (`scripts/merge_lora_weights.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from llava.model.commands import dtype_named, new_folder
from llava.model.consolidate import consolidate
from llava.model.files import Kind, find_source


def main(argv: Sequence[str] | None = None) -> None:
    """Merge as the command line says; upstream's flags.

    Raises:
        ValueError: `--model-path` isn't a LoRA directory, or it doesn't fit its base.
    """
    parser = argparse.ArgumentParser(prog="scripts/merge_lora_weights.py")
    parser.add_argument("--model-path", "--model_path", required=True, help="LoRA directory or hub id")
    parser.add_argument(
        "--model-base", "--model_base", required=True, help="the language model it was trained on"
    )
    parser.add_argument("--save-model-path", "--save_model_path", required=True, type=Path, help="new folder")
    parser.add_argument("--dtype", default=torch.float16, type=dtype_named, help="default: float16")
    arguments = parser.parse_args(argv)
    source = find_source(arguments.model_path, arguments.model_base)
    if source.kind is not Kind.LORA:
        raise ValueError(f"{arguments.model_path} is a {source.kind}; expected a LoRA directory")
    consolidate(source, new_folder(arguments.save_model_path), arguments.dtype)
