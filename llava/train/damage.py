"""Files of a checkpoint that were cut off, as by an interrupted copy; told from their ends, unread."""

import json
import zipfile
from pathlib import Path

_TORCH = (".pt", ".pth", ".bin")
_LENGTH = 8
"""Bytes in front of a safetensors file that say how long its header is."""


def damaged(folder: Path) -> list[str]:
    """Name the files of weights and states, in the folder or deeper, that aren't whole or aren't there."""
    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".safetensors":
            is_whole = _is_whole_safetensors(file)
        elif file.suffix in _TORCH:
            is_whole = zipfile.is_zipfile(file)  # torch writes zip archives, whose contents stand at the end
        else:
            continue
        found += [] if is_whole else [str(file.relative_to(folder))]
    return found + _missing_shards(folder)


def _is_whole_safetensors(file: Path) -> bool:
    """Compare a file's size with what its header says."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(_LENGTH), "little")
        if length > size - _LENGTH:
            return False
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return False
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return size == _LENGTH + length + max(ends, default=0)


def _missing_shards(folder: Path) -> list[str]:
    """Name the files that an index of weights lists and that aren't there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError):
        return [index.name]
    return sorted(name for name in names if not (folder / name).is_file())
