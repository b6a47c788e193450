"""The projector: visual features to visual tokens.

Shapes: N images, T tokens, F feature width, D model width.
"""

import contextlib
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import distributed, nn

from llava.model.config import LlavaConfig
from llava.model.crop_shape import shrinking_projector, tower_shape
from llava.model.projector_options import check_projector_type
from llava.model.reduction import build_visual_projector
from llava.model.vision_tower import vision_config


def build_projector(config: LlavaConfig) -> nn.Module:
    """Build what config.json names.

    `linear`, `mlpNx_gelu` and `identity` map (N, T, F) to (N, T, D); their state-dict names are LLaVA's. The
    others (docs/projectors.md) are a `VisualProjector`, made for the tower that config.json names.

    Raises:
        ValueError: an unknown type, or options that it doesn't have.
    """
    kind, width = config.mm_projector_type, config.hidden_size
    check_projector_type(kind)
    shrinking = shrinking_projector(config)
    if shrinking is not None:
        tower = tower_shape(config, vision_config(str(config.mm_vision_tower)))
        return build_visual_projector(kind, shrinking, tower, width)
    if kind == "linear":
        return nn.Linear(config.mm_hidden_size, width)
    if kind == "identity":
        return nn.Identity()
    layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, width)]
    for _ in range(1, int(kind.removeprefix("mlp").removesuffix("x_gelu"))):
        layers += [nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


def load_projector(projector: nn.Module, path: Path) -> None:
    """Load `mm_projector.bin` strictly; keys are read from behind their first `mm_projector.`.

    Raises:
        ValueError: the file isn't there or unreadable, holds no projector, or another one than the
            configuration describes.
    """
    if not path.is_file():
        raise ValueError(
            f"no projector at {path}; run scripts/pretrain.sh first or name a stage-1 mm_projector.bin"
        )
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} is no file that torch.save wrote, or a damaged one: {error}") from error
    found = {
        name.split("mm_projector.", 1)[1]: value for name, value in weights.items() if "mm_projector." in name
    }
    with gathered(list(projector.parameters())) as is_writer:
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        expected = {name: tuple(value.shape) for name, value in projector.state_dict().items()}
        if shapes != expected:
            raise ValueError(
                f"{path} holds the projector weights {shapes}, but the configuration describes {expected}; "
                f"check --mm_projector_type, the vision tower and the language model it was trained with"
            )
        if is_writer:
            projector.load_state_dict(found)


@contextlib.contextmanager
def gathered(parameters: Sequence[nn.Parameter]) -> Iterator[bool]:
    """Make parameters whole where ZeRO-3 has split them; says whether this rank may write them."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):  # DeepSpeed's mark of a split one
        yield True
        return
    from deepspeed import zero  # noqa: PLC0415 - an extra: there only if DeepSpeed split the parameters

    with zero.GatheredParameters(list(parameters), modifier_rank=0):
        yield not distributed.is_initialized() or distributed.get_rank() == 0
