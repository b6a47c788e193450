"""Checkpoints of the paper's authors: a plain LLaVA directory whose config.json has a `pooling` dictionary.

dpn/release.py knows what the dictionary means and how the routers' weights are called; this file brings it
into config.json's fields and into loading.
"""

from typing import Any, NamedTuple

from transformers.utils import logging

from llava.model.files import config_fields, weight_names
from llava.model.reduction import POOLING, config_from_pooling, has_router, pooling_key_mapping

logger = logging.get_logger(__name__)

TOWER = "model.vision_tower."


class Renaming(NamedTuple):
    """How a checkpoint's names become the model's."""

    key_mapping: dict[str, str]
    """Patterns and replacements, as `from_pretrained` takes them; empty for our own names."""
    has_router: bool
    """Whether the checkpoint brings routers for its reduction."""


def is_released(path: str, *, cache_dir: str | None = None) -> bool:
    """Tell whether a directory or hub repository is a checkpoint of the authors'."""
    return config_fields(path, cache_dir=cache_dir).get(POOLING) is not None


def with_reduction(fields: dict[str, Any], path: str, *, cache_dir: str | None = None) -> dict[str, Any]:
    """Give config.json's fields with `reduction` in place of `pooling`; others pass as they are.

    The authors trained the vision tower, too. Its weights are used where they lie in the checkpoint,
    whatever `unfreeze_mm_vision_tower` says: a tower that was frozen after all has the same weights there.

    Raises:
        ValueError: a setting that isn't supported, or both dictionaries at once.
    """
    if fields.get(POOLING) is None:
        return {name: value for name, value in fields.items() if name != POOLING}
    if fields.get("reduction") is not None:
        raise ValueError(
            f"{path}/config.json has both `{POOLING}` (the authors' format) and `reduction` (ours); remove "
            f"the one that doesn't belong to its weights"
        )
    try:
        reduction = config_from_pooling(fields[POOLING]).to_dict()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    kept = {name: value for name, value in fields.items() if name != POOLING}
    if any(name.startswith(TOWER) for name in weight_names(path, cache_dir=cache_dir)):
        if not fields.get("unfreeze_mm_vision_tower"):
            logger.warning("%s was trained with its vision tower: the weights inside are used", path)
        kept["unfreeze_mm_vision_tower"] = True
    return {**kept, "reduction": reduction}


def renaming(path: str, *, cache_dir: str | None = None) -> Renaming:
    """Say how the names of a checkpoint in any format of LLaVA's become the model's.

    Raises:
        ValueError: its `pooling` has a setting that isn't supported.
    """
    pooling = config_fields(path, cache_dir=cache_dir).get(POOLING)
    if pooling is None:
        return Renaming({}, has_router=True)
    return Renaming(pooling_key_mapping(pooling), has_router=has_router(pooling))
