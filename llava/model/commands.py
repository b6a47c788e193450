"""What the maintenance commands share: their dtype flag, their output folder, and errors in one line."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def dtype_named(name: str) -> torch.dtype:
    """Read the value of --dtype."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise argparse.ArgumentTypeError(f"expected float32, float16 or bfloat16, got {name!r}")
    return dtype


def saved_dtype(config: object) -> torch.dtype:
    """Give the dtype that config.json says its weights have; float16, LLaVA's, where it doesn't say."""
    dtype = getattr(config, "dtype", None)
    if isinstance(dtype, str):
        return dtype_named(dtype)
    return dtype if isinstance(dtype, torch.dtype) else torch.float16


def new_folder(path: Path) -> Path:
    """Give a folder to write a checkpoint to; it is made when something is written.

    Raises:
        ValueError: it holds something already; a checkpoint is never changed in place.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists already and isn't empty; name a new folder, nothing is overwritten")
    return path


def run(command: Callable[[], None], name: str) -> None:
    """Run a command line; what is wrong with flags or files ends in one line, not in a traceback."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        command()
    except ValueError as error:
        sys.exit(f"{name}: {error}")
