"""What a CLIP tower computes on the way: hidden states of any layer, and what its class token attends to.

Shapes: N images, P = H * W patches, h heads, c head width, F = h * c feature width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel
from transformers.models.clip.modeling_clip import CLIPEncoder


def hidden_states(tower: CLIPVisionModel, pixels: Tensor, indices: Sequence[int]) -> list[Tensor]:
    """Give hidden states (N, 1 + P, F) of a tower: 0 is the embedding, k the output of layer k.

    Position embeddings are interpolated for pixels of another size than the tower's own.

    Not through `output_hidden_states`: transformers hooks a tower's layers once more when the decoder around
    it is asked for its own states (seen in 5.23), and the tower's list then holds every state twice.

    Raises:
        ValueError: the tower has no such layer.
    """
    layers = encoder_layers(tower)
    for index in indices:
        check_layer(index, len(layers))
    wanted = [index % (len(layers) + 1) for index in indices]
    seen: dict[int, Tensor] = {}

    def remember(index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: seen.update({index: given[0]})

    hooks = [layers[i].register_forward_pre_hook(remember(i)) for i in set(wanted) - {len(layers)}]
    try:
        is_other = pixels.shape[-1] != tower.config.image_size
        seen[len(layers)] = tower(pixels, interpolate_pos_encoding=is_other).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    return [seen[index] for index in wanted]


@torch.no_grad()
def class_attention(layer: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    """Make the class token's row of a layer's attention from the layer's input (N, 1 + P, F).

    Queries and keys are projected once more, the softmax is taken in float32; it equals the row that eager
    attention gives (tests/llava/model/test_clip_states.py).

    Args:
        layer: a CLIPEncoderLayer.
        states: what it got.

    Returns:
        (N, P) float32, mean over heads, without the class token's own share; and the patches' keys (N, P, F).
    """
    attention = layer.self_attn
    normed = layer.layer_norm1(states)
    keys = attention.k_proj(normed)  # (N, 1 + P, F)
    shape = (attention.num_heads, attention.head_dim)
    query = attention.q_proj(normed[:, 0]).unflatten(-1, shape)  # (N, h, c)
    with torch.autocast(states.device.type, enabled=False):
        scores = torch.einsum("nhc,nphc->nhp", query.float(), keys.unflatten(-1, shape).float())
        weights = (scores * attention.scale).softmax(-1).mean(1)  # (N, 1 + P)
    return weights[:, 1:], keys[:, 1:]


def encoder_layers(tower: CLIPVisionModel) -> Any:
    """Give the layers of a tower, whatever lies around them."""
    return next(module for module in tower.modules() if isinstance(module, CLIPEncoder)).layers


def check_layer(index: object, layers: int) -> None:
    """Refuse, with a ValueError, an `mm_vision_select_layer` that a tower of so many layers doesn't have."""
    if not isinstance(index, int) or not -layers - 1 <= index <= layers:
        raise ValueError(
            f"mm_vision_select_layer={index}, but the vision tower has {layers} layers; take one of "
            f"{-layers - 1} to {layers}"
        )
