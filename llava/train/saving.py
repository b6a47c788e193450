"""Checkpoints that are whole or not there, and a full disk that costs no more than the checkpoint it stopped.

output_dir/.unfinished/checkpoint-N/    while it is being written; nobody reads it
output_dir/checkpoint-N/                once all ranks have written all of it: one rename
"""

import contextlib
import logging
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from llava.train.checkpoint import is_usable, last_checkpoint, numbered

logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
"""Folder inside --output_dir that is cleared before every run and after every checkpoint."""

_BUFFERS = "routing_state_{}.pt"


def unfinished(output_dir: Path) -> Path:
    """Give the folder that checkpoints are written in."""
    return output_dir / UNFINISHED


def reclaimable(output_dir: Path) -> int:
    """Bytes that `clear` will free."""
    return sum(file.stat().st_size for file in unfinished(output_dir).rglob("*") if file.is_file())


def clear(output_dir: Path) -> None:
    """Remove what an interrupted run has left half written or half deleted."""
    shutil.rmtree(unfinished(output_dir), ignore_errors=True)


@contextlib.contextmanager
def refusing_half_saves(output_dir: Path, *, is_writer: bool) -> Iterator[None]:
    """Turn an error of writing into one that says what to do; what was half written is removed.

    The launcher ends the other ranks, which wait for this one.

    Raises:
        ValueError: a file can't be written; the last complete checkpoint is named.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_from_torch_save(error):
            raise
        if is_writer:
            clear(output_dir)
        kept = last_checkpoint(output_dir)
        raise ValueError(
            f"saving to {output_dir} failed: {_first_line(error)} ({free_space(output_dir)} free). "
            f"{f'{kept} is complete' if kept else 'There is no complete checkpoint yet'}; make room and "
            f"start the same command again{', it goes on from there' if kept else ''}"
        ) from error


def publish(name: str, output_dir: Path) -> None:
    """Give a checkpoint that all ranks have written its name, in one step; called by the writer alone."""
    written, folder = unfinished(output_dir) / name, output_dir / name
    for file in written.rglob("*"):
        if file.is_file():
            _flush(file)
    if folder.exists():  # an incomplete one, of a run that was interrupted
        _remove(folder)
    written.rename(folder)
    _flush(output_dir)
    clear(output_dir)


def keep_newest(output_dir: Path, limit: int | None) -> None:
    """Remove the checkpoints before the `limit` newest usable ones; None or 0 keeps all.

    What can't be used doesn't count, whatever its number: it must not push out what was just saved.
    """
    if not limit or limit < 0:
        return
    folders = numbered(output_dir)
    kept = sorted((step for step, folder in folders.items() if is_usable(folder)), reverse=True)[:limit]
    for step, folder in folders.items():
        if kept and step < min(kept) and folder.is_dir():
            _remove(folder)


def save_buffers(model: nn.Module, folder: Path, rank: int) -> None:
    """Write the routing objective's running state, which is each rank's own: mu, loss window, counters.

    Weights alone don't restore it: LoRA files hold no buffers, a full checkpoint holds the first rank's, and
    DeepSpeed casts buffers to the training's dtype.
    """
    buffers = _routing_buffers(model)
    if buffers:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: value.cpu() for name, value in buffers.items()}, folder / _BUFFERS.format(rank))


def load_buffers(model: nn.Module, folder: Path, rank: int) -> None:
    """Put back what `save_buffers` wrote, in the dtype it was saved in.

    Raises:
        ValueError: the file isn't there, or is another model's.
    """
    buffers = _routing_buffers(model)
    if not buffers:
        return
    file = folder / _BUFFERS.format(rank)
    if not file.is_file():
        file = folder / _BUFFERS.format(0)
        logger.warning(
            "%s was saved by fewer ranks: rank %d takes the first one's routing state", folder, rank
        )
    if not file.is_file():
        raise ValueError(
            f"{folder} lacks {file.name}, the state that the router's training goes on with: it was saved by "
            "an older version; remove the folder to go on from an earlier checkpoint"
        )
    saved = torch.load(file, map_location="cpu", weights_only=True)
    if saved.keys() != buffers.keys():
        raise ValueError(
            f"{file} holds {sorted(saved)}, but the model needs {sorted(buffers)}: it belongs to another "
            "run; choose another --output_dir to start afresh"
        )
    owners = dict(model.named_modules())
    for name, value in saved.items():
        owner, _, own_name = name.rpartition(".")
        owners[owner]._buffers[own_name] = value.to(buffers[name].device)


def free_space(folder: Path) -> str:
    """Say how much room is left where a folder lies."""
    return f"{shutil.disk_usage(folder).free / 2**30:.1f} GiB"


def _routing_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """List the buffers that the decoder's reducer has, by name."""
    return {name: buffer for name, buffer in model.named_buffers() if "reducer." in name}


def _is_from_torch_save(error: RuntimeError) -> bool:
    """Tell whether torch's file writer raised it: a full disk is a RuntimeError there like any other.

    The writer is compiled, so that the last Python frame is the one in torch.serialization that called it.
    """
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"] == torch.serialization.__name__


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _remove(folder: Path) -> None:
    """Take a checkpoint's name away before its files, so that a half deleted one is never found."""
    doomed = unfinished(folder.parent) / f"old-{folder.name}"
    doomed.parent.mkdir(exist_ok=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file or a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
