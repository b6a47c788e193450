"""Which projector: its name and options, read from flags or config.json and held against the tower."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.model.config import LlavaConfig
from llava.model.crop_shape import crop_shape, shrinking_projector, tower_shape
from llava.model.files import read_object
from llava.model.merging import NO_GRID
from llava.model.reduction import (
    PROJECTORS,
    did_you_mean,
    parse_projector,
    projector_from_dict,
    projector_to_dict,
)
from llava.model.vision_tower import vision_config

PLAIN = r"linear|identity|mlp\d+x_gelu"
"""LLaVA's own types: they have no options, and make a token of every feature."""


def check_projector_type(kind: object) -> None:
    """Refuse, with a ValueError, what config.json or a flag may say and `build_projector` doesn't know."""
    if not isinstance(kind, str) or not (kind in PROJECTORS or re.fullmatch(PLAIN, kind)):
        hint = did_you_mean(str(kind), ("linear", "mlp2x_gelu", "identity", *PROJECTORS))
        raise ValueError(
            f"unknown mm_projector_type {kind!r}{hint}; known: linear, mlpNx_gelu (N a number), identity, "
            f"{', '.join(PROJECTORS)}"
        )


def check_projector(config: LlavaConfig) -> None:
    """Refuse, before weights are loaded, a projector that can't work with its options, tower or merge type.

    Raises:
        ValueError: an unknown type, options that it doesn't have or that don't suit the tower, or a setting
            that needs every feature, or a grid, to be left.
    """
    kind = config.mm_projector_type
    check_projector_type(kind)
    projector = shrinking_projector(config)
    if projector is None:
        if config.mm_projector_options:
            raise ValueError(
                f"mm_projector_options={config.mm_projector_options}, but mm_projector_type={kind} has no "
                f"options; leave them out"
            )
        return
    if config.mm_vision_select_feature != "patch":
        raise ValueError(
            f"mm_projector_type={kind} takes a grid of features, which mm_vision_select_feature="
            f"{config.mm_vision_select_feature!r} doesn't leave; use patch"
        )
    sizes = vision_config(str(config.mm_vision_tower))
    projector.feature_layers(tower_shape(config, sizes))
    if crop_shape(config, sizes).grid == NO_GRID and config.mm_patch_merge_type != "flat":
        raise ValueError(
            f"mm_patch_merge_type={config.mm_patch_merge_type!r} lays visual tokens out as in the image, but "
            f"those of mm_projector_type={kind} form no grid; use flat"
        )


def asked_options(kind: str, words: Sequence[str]) -> dict[str, Any] | None:
    """Read the words of `--mm_projector_options` into what config.json stores; None where there are none.

    Raises:
        ValueError: an unknown type or option, a value of another type, or a type that has no options.
    """
    check_projector_type(kind)
    if not words:
        return None
    if kind not in PROJECTORS:
        raise ValueError(
            f"--mm_projector_options {' '.join(words)}: --mm_projector_type {kind} has no options, only "
            f"{', '.join(PROJECTORS)} have"
        )
    return projector_to_dict(parse_projector(kind, words))


def all_options(kind: str, given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Complete options by their defaults; None for a type that has none."""
    return projector_to_dict(projector_from_dict(kind, given or {})) if kind in PROJECTORS else None


def check_same_options(config: LlavaConfig, path: Path) -> None:
    """Refuse an `mm_projector.bin` that was trained with other options than config.json's.

    They needn't show in the shapes of its weights, but stage 1 leaves a config.json beside the file.

    Raises:
        ValueError: the config.json beside the file has this type with other options.
    """
    beside, kind = path.parent / "config.json", config.mm_projector_type
    if kind not in PROJECTORS or not beside.is_file():
        return
    saved = read_object(beside)
    if saved.get("mm_projector_type") != kind:
        return
    theirs = all_options(kind, saved.get("mm_projector_options"))
    ours = all_options(kind, config.mm_projector_options)
    if theirs != ours:
        raise ValueError(
            f"{path} was trained with other options of {kind}, {theirs}, than those asked for, {ours}; name "
            f"its own by --mm_projector_options"
        )
