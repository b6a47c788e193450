"""The JSON file of --deepspeed, read and checked before DeepSpeed reads it."""

import json
from pathlib import Path
from typing import Any

STAGES = (0, 1, 2, 3)
_SECTIONS = ("offload_optimizer", "offload_param")


def engine_sections(path: str) -> dict[str, Any]:
    """Read the file; its `zero_optimization` is there, if empty, and of the form that DeepSpeed expects.

    Raises:
        ValueError: no such file, no JSON object, or a ZeRO stage or section that DeepSpeed doesn't know.
    """
    try:
        sections = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--deepspeed {path} can't be read ({error}); expected a JSON file such as scripts/zero3.json"
        ) from error
    if not isinstance(sections, dict):
        raise ValueError(
            f"--deepspeed {path} holds a {type(sections).__name__}; expected an object such as "
            "scripts/zero3.json"
        )
    zero = sections.setdefault("zero_optimization", {})
    if not isinstance(zero, dict) or zero.get("stage", 0) not in STAGES:
        stage = zero.get("stage") if isinstance(zero, dict) else zero
        raise ValueError(
            f"--deepspeed {path}: the stage in zero_optimization must be one of {STAGES}, found {stage!r}"
        )
    for name in _SECTIONS:
        if not isinstance(zero.get(name) or {}, dict):
            raise ValueError(
                f"--deepspeed {path}: {name} must be an object such as {{'device': 'cpu'}}, "
                f"found {zero[name]!r}"
            )
    return sections
