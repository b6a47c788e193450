"""Weights that lie beside a base (`mm_projector.bin`, `non_lora_trainables.bin`) into a loaded model."""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from transformers.utils import logging

from llava.model.llava_llama import LlavaLlamaForCausalLM

logger = logging.get_logger(__name__)

WRAPPERS = re.compile(r"^(?:base_model\.|module\.|model\.)*")
"""What PEFT, DeepSpeed and the outer classes put in front of a parameter's name."""

PROJECTOR_PART = "model.mm_projector."
PARTS = (PROJECTOR_PART, "model.reducer.", "model.vision_tower.")
"""Modules that a file brings as a whole or not at all."""

EMBEDDING = "model.embed_tokens.weight"


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the names that the model has for them, whatever wrapper they were saved under.

    `base_model.model.model.mm_projector.0.weight`, `model.mm_projector.0.weight` and
    `mm_projector.0.weight` are the same parameter; the tower's legacy `vision_model.` level goes, as
    transformers 5 has it in memory.
    """
    named: dict[str, Tensor] = {}
    for name, value in tensors.items():
        bare = WRAPPERS.sub("", name)
        bare = bare.replace("vision_tower.vision_tower.vision_model.", "vision_tower.vision_tower.")
        named[bare if bare.startswith("lm_head.") else f"model.{bare}"] = value
    return named


def parts_of(names: Iterable[str]) -> list[str]:
    """List the modules that the names belong to."""
    names = list(names)
    return [part for part in PARTS if any(name.startswith(part) for name in names)]


@torch.no_grad()
def put_into(model: LlavaLlamaForCausalLM, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors (under the model's own names) into a model; each must find its place.

    An embedding may be whole, or hold the rows of the last tokens only, as upstream's start and end tokens
    are saved, and the routing token.

    Raises:
        ValueError: names that the model doesn't have, an incomplete module, or another shape.
    """
    state = model.state_dict(keep_vars=True)
    tower_is_frozen = not model.config.unfreeze_mm_vision_tower
    passed_over = [name for name in tensors if tower_is_frozen and name.startswith("model.vision_tower.")]
    if passed_over:
        logger.warning("%s holds a vision tower, which isn't used: unfreeze_mm_vision_tower is false", source)
    given = {name: value for name, value in tensors.items() if name not in passed_over}
    unexpected = sorted(set(given) - set(state))
    learned = [name for name, _ in model.named_parameters()]  # buffers matter to training alone
    missing = sorted(
        name for part in parts_of(given) for name in learned if name.startswith(part) and name not in given
    )
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(state[name].shape)}"
        for name in given
        if name in state and not _fits(name, given[name], state[name])
    ]
    if unexpected or missing or misshapen:
        raise ValueError(
            f"the weights in {source} don't fit: missing {missing}, unexpected {unexpected}, of another "
            f"shape {misshapen}; config.json beside it describes another model than the one it was saved "
            f"from (check mm_projector_type), or the base is another one"
        )
    for name, value in given.items():
        state[name][-len(value) :].copy_(value) if name == EMBEDDING else state[name].copy_(value)


def _fits(name: str, given: Tensor, there: Tensor) -> bool:
    if name != EMBEDDING:
        return given.shape == there.shape
    return given.shape[1:] == there.shape[1:] and len(given) in (1, 2, len(there))
