"""Write files that a reader never sees half written."""

import json
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a whole text file under its name at once."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON for people to read, too."""
    write_text(path, json.dumps(value, indent=2) + "\n")
