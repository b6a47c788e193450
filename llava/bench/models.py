"""The models that are timed: transformers' LLaVA and ours, over the same weights in memory.

Weights are random, and shared: ours holds the very tensors of the reference, so that ten variants of a 7B
model need no more memory than one, and a difference in time is none in data.

Shapes: B samples, S DPE layers, E experts, D model width.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from llava.bench.shapes import Shape, our_config, reference_config, tower_config
from llava.model.config import LlavaConfig
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.projector import build_projector
from llava.model.reduction import VisualProjector, build_reducer

RENAMED = {
    "model.language_model.": "model.",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "model.vision_tower.": "model.vision_tower.vision_tower.",
    "lm_head.": "lm_head.",
}
"""Names of transformers' LLaVA in memory, and ours; the first that fits."""
MARGIN = 10.0
"""Logit of the expert that a taught router chooses; the others get 0."""


def build_reference(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int) -> nn.Module:
    """Build transformers' LlavaForConditionalGeneration with random weights."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(
            reference_config(shape), dtype=dtype, attn_implementation="sdpa"
        )
    return model.eval()


def build_ours(
    reference: nn.Module,
    shape: Shape,
    *,
    reduction: dict[str, Any] | None,
    has_tower: bool,
    projector: tuple[str, dict[str, Any]] | None = None,
) -> LlavaLlamaForCausalLM:
    """Build our model over the reference's weights; what it hasn't, routers and other projectors, is random.

    Args:
        reference: as `build_reference` gives it.
        shape: its sizes.
        reduction: `to_dict()` of a method's configuration, or None for the dense model.
        has_tower: whether tower and projector are part of the model.
        projector: type and options of one in place of LLaVA's, where there is a tower.
    """
    weights = {_renamed(name): value for name, value in reference.state_dict().items()}
    if not has_tower:
        weights = {name: value for name, value in weights.items() if not name.startswith(_TOWER)}
    with tempfile.TemporaryDirectory() as folder:
        tower_config(shape).save_pretrained(folder)
        config = our_config(shape, folder if has_tower else None, reduction)
        return over_weights(weights, config, projector=projector)


_PROJECTOR = "model.mm_projector."
_TOWER = ("model.vision_tower.", _PROJECTOR)


def over_weights(
    weights: dict[str, Tensor], config: LlavaConfig, *, projector: tuple[str, dict[str, Any]] | None = None
) -> LlavaLlamaForCausalLM:
    """Build our model around tensors that are there already; nothing is copied.

    Args:
        weights: of a model of this configuration under LLaVA's names; a reduction's and another projector's
            are made here, random.
        config: becomes the model's own.
        projector: type and options of a projector in place of LLaVA's, whose weights are then left alone.
    """
    head = weights["lm_head.weight"]
    fresh = build_reducer(
        config.reduction,
        width=config.hidden_size,
        num_layers=config.num_hidden_layers,
        intermediate_size=config.intermediate_size,
    )
    if fresh is not None:
        weights = weights | {
            f"model.reducer.{name}": value.to(head.device) for name, value in fresh.state_dict().items()
        }
    if projector is not None:
        config.mm_projector_type, config.mm_projector_options = projector
        weights = {name: value for name, value in weights.items() if not name.startswith(_PROJECTOR)}
        weights |= _fresh_projector(config, head)
    with init_empty_weights(include_buffers=False):
        model = LlavaLlamaForCausalLM(config)
    model.load_state_dict(weights, assign=True)
    device: Any = head.device
    return model.to(device).eval()  # moves the rotary buffers only


def _fresh_projector(config: LlavaConfig, like: Tensor) -> dict[str, Tensor]:
    """Initialise the projector that a configuration names, of the device and type of another tensor."""
    projector = build_projector(config)
    if isinstance(projector, VisualProjector):
        for module in projector.modules():
            projector.init_weights(module)  # what torch's own layers don't initialise
    return {f"{_PROJECTOR}{name}": value.to(like) for name, value in projector.state_dict().items()}


def _renamed(name: str) -> str:
    start = next(start for start in RENAMED if name.startswith(start))
    return RENAMED[start] + name.removeprefix(start)


@torch.no_grad()
def teach_routes(
    model: LlavaLlamaForCausalLM, inputs: dict[str, Any], routes: Sequence[Sequence[int]]
) -> None:
    """Set the routers' last layers so that they choose the given experts for these inputs.

    So a variant's routes are chosen by its routers in every run, as a trained model's are, with everything
    that this costs in the clock; forced routes would skip the choice and its device read. In one forward pass
    every router's last layer becomes the smallest linear map from the features it sees to the wanted choice.

    Args:
        model: with a reduction whose routers end in `predictor`.
        inputs: of its forward pass, for B samples.
        routes: (B, S) expert indices.
    """
    assert model.model.reducer is not None
    wanted = torch.tensor(routes)  # (B, S)

    def solve(index: int, predictor: nn.Linear, features: Tensor) -> None:
        experts = predictor.weight.shape[0]
        target = MARGIN * nn.functional.one_hot(wanted[:, index], experts).double()  # (B, E)
        weight = torch.linalg.pinv(features.double().cpu()) @ target  # (D/4, E)
        predictor.weight.copy_(weight.T)

    routers: Any = model.model.reducer.routers
    handles = [
        router.predictor.register_forward_pre_hook(
            lambda module, given, index=index: solve(index, module, given[0])
        )
        for index, router in enumerate(routers)
    ]
    try:
        model(**inputs, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
