"""What a method in front of the projector (`--reduction visionzip ...`) asks of the model around it."""

from llava.model.config import LlavaConfig
from llava.model.crop_shape import crop_shape
from llava.model.reduction import PROJECTORS, SelectorConfig, front_config
from llava.model.vision_tower import vision_config


def check_front(config: LlavaConfig, *, in_training: bool = False) -> None:
    """Refuse, before weights are loaded, a method in front of the projector that can't work with the model.

    Raises:
        ValueError: naming the method, the setting of config.json that doesn't go with it, and one that does.
    """
    front = front_config(config.reduction)
    if front is None:
        return
    name = f"--reduction {front.method}"
    if in_training and not front.trains:
        raise ValueError(
            f"{name} has nothing to learn and isn't trained with: train without it, and give it to "
            f"llava.eval or load_pretrained_model"
        )
    if config.mm_vision_tower is None:
        raise ValueError(f"{name} acts on images, but the checkpoint has no vision tower (mm_vision_tower)")
    if config.mm_projector_type in PROJECTORS:
        raise ValueError(
            f"{name} needs a projector that makes a token of every feature, but mm_projector_type="
            f"{config.mm_projector_type} leaves fewer by itself; use a checkpoint of linear or mlpNx_gelu"
        )
    if config.mm_vision_select_feature != "patch":
        raise ValueError(
            f"{name} takes the features of patches, not the class token, which mm_vision_select_feature="
            f"{config.mm_vision_select_feature!r} keeps; use patch"
        )
    if isinstance(front, SelectorConfig):
        _check_selector(front, name, config)
    elif config.image_aspect_ratio == "anyres":
        raise ValueError(
            f"{name} shrinks the whole image, but image_aspect_ratio='anyres' cuts it into tiles of the "
            f"tower's own size; use pad"
        )
    crop_shape(config, vision_config(config.mm_vision_tower))


def _check_selector(front: SelectorConfig, name: str, config: LlavaConfig) -> None:
    """Refuse mosaics, for which features must lie in a grid, a layer without attention, and wrong counts."""
    if config.mm_patch_merge_type != "flat":
        raise ValueError(
            f"{name} leaves no grid of visual tokens, but mm_patch_merge_type={config.mm_patch_merge_type!r} "
            f"lays them out as in the image; use flat"
        )
    tower = vision_config(str(config.mm_vision_tower))
    layers = tower.num_hidden_layers
    assert isinstance(layers, int)
    if config.mm_vision_select_layer % (layers + 1) == 0:
        raise ValueError(
            f"{name} ranks features by a layer's attention, but mm_vision_select_layer="
            f"{config.mm_vision_select_layer} takes the embedding, in front of all layers"
        )
    front.check(crop_shape(config, tower).tokens)
