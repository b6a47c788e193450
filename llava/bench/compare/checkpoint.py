"""A real checkpoint in place of random weights: its sizes, and models that share its tensors."""

import copy
from collections.abc import Callable
from typing import Any

import torch

from llava.bench.models import over_weights
from llava.bench.shapes import Shape
from llava.model.assemble import check_tower, source_config
from llava.model.builder import load_pretrained_model
from llava.model.config import LlavaConfig
from llava.model.crop_shape import crop_shape
from llava.model.files import find_source
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.reduction import PROJECTORS
from llava.model.vision_tower import vision_config

Projector = tuple[str, dict[str, Any]]
Maker = Callable[[dict[str, Any] | None, Projector | None], LlavaLlamaForCausalLM]
"""Makes a model from a reduction's `to_dict()` and a projector's type and options; None for neither."""


def read_shape(path: str, text: int) -> Shape:
    """Read the sizes of a checkpoint, without its weights; prompts get `text` text tokens.

    Raises:
        ValueError: no LLaVA checkpoint, or one whose dense model isn't plain LLaVA.
    """
    source = find_source(path, None)
    config = source_config(source)
    check_tower(source, config)
    if config.mm_vision_tower is None:
        raise ValueError(f"--model_path {path} has no vision tower; give a LLaVA checkpoint")
    if config.mm_projector_type in PROJECTORS or config.mm_vision_select_feature != "patch":
        raise ValueError(
            f"--model_path {path} has mm_projector_type={config.mm_projector_type} and "
            f"mm_vision_select_feature={config.mm_vision_select_feature}; all rows are held against plain "
            f"LLaVA, so it takes a projector that makes a token of every patch"
        )
    tower: Any = vision_config(config.mm_vision_tower)
    return Shape(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads or config.num_attention_heads,
        vocab_size=config.vocab_size,
        grid=crop_shape(config, tower).grid[0],
        text=text,
        tower_width=tower.hidden_size,
        tower_layers=tower.num_hidden_layers,
    )


def checkpoint_maker(path: str, device: torch.device, dtype: torch.dtype) -> Maker:
    """Load a checkpoint once; every model made then holds its tensors.

    A reduction that it was trained with is left out: routers are made anew and taught the route of their
    budget, so that all methods stand on the same decoder.
    """
    _, loaded, _, _ = load_pretrained_model(path, None, device=str(device), device_map=None, dtype=dtype)
    weights = {
        name: value for name, value in loaded.state_dict().items() if not name.startswith("model.reducer.")
    }
    plain = _plain(loaded.config)

    def make(reduction: dict[str, Any] | None, projector: Projector | None) -> LlavaLlamaForCausalLM:
        config = copy.deepcopy(plain)
        config.reduction = reduction
        return over_weights(weights, config, projector=projector)

    return make


def _plain(config: LlavaConfig) -> LlavaConfig:
    """Describe the dense model; nothing ends its answers early, and the tower's weights are brought along."""
    config = copy.deepcopy(config)
    config.reduction = config.router_token_id = None
    config.eos_token_id = None
    config.unfreeze_mm_vision_tower = True
    return config
