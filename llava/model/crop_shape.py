"""What one crop becomes, known before anything is loaded: the tower's features, and the projector's tokens.

Shapes: H x W grid of the tower's features, h x w grid of visual tokens, T tokens.
"""

from typing import NamedTuple

from transformers import CLIPVisionConfig

from llava.model.config import LlavaConfig
from llava.model.merging import NO_GRID
from llava.model.reduction import PROJECTORS, ProjectorConfig, TowerShape, projector_from_dict
from llava.model.vision_tower import check_layer


class CropShape(NamedTuple):
    """The visual tokens of one crop."""

    tokens: int
    """T, what plain LLaVA-1.5 has 576 of."""
    grid: tuple[int, int]
    """h and w, or NO_GRID where the tokens form none."""
    features: tuple[int, int] = NO_GRID
    """H and W where a projector makes fewer tokens of them; NO_GRID where every feature becomes a token."""


def crop_shape(config: LlavaConfig, tower: CLIPVisionConfig) -> CropShape:
    """Compute what a crop becomes, from config.json and the tower's sizes.

    Raises:
        ValueError: options of the projector that it doesn't have, or that don't suit the tower's grid.
    """
    grid = patch_grid(tower)
    projector = shrinking_projector(config)
    if projector is not None:
        return CropShape(projector.num_tokens(grid), projector.grid(grid) or NO_GRID, grid)
    has_class_token = config.mm_vision_select_feature == "cls_patch"
    return CropShape(grid[0] * grid[1] + has_class_token, NO_GRID if has_class_token else grid)


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
    layers = tower.num_hidden_layers
    assert isinstance(layers, int)
    check_layer(config.mm_vision_select_layer, layers)
    layer = config.mm_vision_select_layer % (layers + 1)
    return TowerShape(width=config.mm_hidden_size, grid=patch_grid(tower), num_layers=layers, layer=layer)


def patch_grid(tower: CLIPVisionConfig) -> tuple[int, int]:
    """Give the rows and columns of the patches that a tower cuts its image into."""
    side, patch = tower.image_size, tower.patch_size
    assert isinstance(side, int)
    assert isinstance(patch, int)
    return side // patch, side // patch
