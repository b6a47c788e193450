"""Where a model comes from: a directory or a hub id, told apart before anything is read."""

import re
from pathlib import Path

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


def require_source(flag: str, value: str | None, what: str) -> None:
    """Demand a directory with a config.json or, where no such directory can be meant, a hub id."""
    if not value:
        raise ValueError(f"--{flag} is missing: name {what} (a directory or a hub id)")
    path = Path(value)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"--{flag} {value}: this folder holds no config.json, so it is not {what}")
        return
    is_path_like = not HUB_ID.fullmatch(value) or Path(path.parts[0]).is_dir()
    if path.exists() or is_path_like:
        raise ValueError(f"--{flag} {value}: no such folder; expected {what} (a directory or a hub id)")
