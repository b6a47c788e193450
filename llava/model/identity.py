"""Which checkpoint this is: a short hash of its settings and of a sample of its weights."""

import hashlib
from pathlib import Path
from typing import Any

WEIGHTS = ("*.safetensors", "*.bin")
_SAMPLED_BYTES = 1 << 16
_SAMPLES_PER_FILE = 16


def checkpoint_digest(folder: Path) -> str:
    """Identify a checkpoint directory that has a config.json: 16 hexadecimal digits.

    Training changes all weights at once, so evenly spread pieces of every file are enough.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        _sample(path, digest)
    return digest.hexdigest()[:16]


def _sample(path: Path, digest: Any) -> None:
    """Add evenly spread pieces of a file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for piece in range(_SAMPLES_PER_FILE + 1):
            file.seek(max(0, size - _SAMPLED_BYTES) * piece // _SAMPLES_PER_FILE)
            digest.update(file.read(_SAMPLED_BYTES))
