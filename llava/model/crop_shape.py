"""What one crop becomes, known before anything is loaded: the tower's features, and the projector's tokens.

A selector (`--reduction prumerge_plus`, `visionzip`) picks among the features in between.

Shapes: H x W grid of the tower's features, h x w grid of visual tokens, T tokens.
"""

from typing import NamedTuple

from transformers import CLIPVisionConfig

from llava.model.clip_states import check_layer
from llava.model.config import LlavaConfig
from llava.model.merging import NO_GRID
from llava.model.reduction import (
    PROJECTORS,
    ProjectorConfig,
    TowerShape,
    front_config,
    projector_from_dict,
)
from llava.model.vision_tower import image_side


class CropShape(NamedTuple):
    """The visual tokens of one crop."""

    tokens: int
    """T, what plain LLaVA-1.5 has 576 of."""
    grid: tuple[int, int]
    """h and w, or NO_GRID where the tokens form none."""
    features: tuple[int, int] = NO_GRID
    """H and W of plain LLaVA where there are fewer tokens than that, by the projector or a smaller image;
    NO_GRID where every feature becomes a token."""


def crop_shape(config: LlavaConfig, tower: CLIPVisionConfig) -> CropShape:
    """Compute what a crop becomes, from config.json and the tower's sizes.

    Raises:
        ValueError: options of the projector that it doesn't have, or that don't suit the tower's grid, or an
            image that the tower can't read.
    """
    side = tower.image_size
    assert isinstance(side, int)
    own, projector = patch_grid(tower, side), shrinking_projector(config)
    if projector is not None:
        return CropShape(projector.num_tokens(own), projector.grid(own) or NO_GRID, own)
    grid = patch_grid(tower, image_side(front_config(config.reduction), tower))
    has_class_token = config.mm_vision_select_feature == "cls_patch"
    return CropShape(
        tokens=grid[0] * grid[1] + has_class_token,
        grid=NO_GRID if has_class_token else grid,
        features=NO_GRID if grid == own else own,
    )


def shrinking_projector(config: LlavaConfig) -> ProjectorConfig | None:
    """Give the options of a projector that makes fewer tokens; None for LLaVA's own projectors.

    Raises:
        ValueError: it doesn't have such options.
    """
    if config.mm_projector_type not in PROJECTORS:
        return None
    return projector_from_dict(config.mm_projector_type, config.mm_projector_options or {})


def tower_shape(config: LlavaConfig, tower: CLIPVisionConfig) -> TowerShape:
    """Tell a projector about the tower in front of it; ValueError if that lacks `mm_vision_select_layer`."""
    layers, side = tower.num_hidden_layers, tower.image_size
    assert isinstance(layers, int)
    assert isinstance(side, int)
    check_layer(config.mm_vision_select_layer, layers)
    layer = config.mm_vision_select_layer % (layers + 1)
    return TowerShape(
        width=config.mm_hidden_size, grid=patch_grid(tower, side), num_layers=layers, layer=layer
    )


def patch_grid(tower: CLIPVisionConfig, side: int) -> tuple[int, int]:
    """Give the rows and columns of the patches that a tower cuts an image of `side` pixels into."""
    patch = tower.patch_size
    assert isinstance(patch, int)
    return side // patch, side // patch
