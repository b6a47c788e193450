"""The attention function "packed": samples lie one after another and never see each other.

Decoding is plain SDPA.

Shapes: B samples, N packed rows, H heads, G key/value heads, Q query length, C head width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from dpn.experts import to_device
from dpn.layout import Layout

PACKED = "packed"


@dataclass(frozen=True)
class Packing:
    """Where samples begin and end in a packed sequence, made once per stage."""

    lengths: tuple[int, ...]
    cumulative: Tensor
    """(B + 1,) int32 on the device, for variable-length kernels."""

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "Packing":
        """Describe one stage's layout."""
        return cls(layout.lengths, to_device(layout.starts.astype("int32"), device))


def packed_attention(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    kv_sink: list[Tensor] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend causally within every sample of a packed sequence, or as SDPA does where there is no packing.

    Args:
        module: the attention layer, for its number of key/value groups.
        query: (1, H, N, C) packed, or (B, H, Q, C) in decoding.
        key: (1, G, N, C) or (B, G, past + Q, C), rotated.
        value: as key.
        attention_mask: only without packing.
        packing: boundaries of the samples.
        kv_sink: receives key and value, so that the decoder can put them into a cache.
        scaling: factor of the scores.
        dropout: probability of dropping a weight.
        **kwargs: passed to SDPA in decoding.

    Returns:
        (1, N, H, C) or (B, Q, H, C), and None for the weights that are never formed.
    """
    if kv_sink is not None:
        kv_sink += [key, value]
    if packing is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    if torch.is_autocast_enabled(query.device.type):  # rotary embeddings leave queries and keys in float32
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)  # (1, H, N, C)
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0:
        return _varlen(query, key, value, packing, scaling), None
    return _per_sample(query, key, value, packing, scaling, dropout), None


def _per_sample(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None, dropout: float
) -> Tensor:
    """One causal SDPA per sample, or one for all where their lengths are equal.

    (1, H, N, C) to (1, N, H, C).
    """
    if len(set(packing.lengths)) == 1:
        shape = (len(packing.lengths), packing.lengths[0])
        rows = [
            states[0].unflatten(1, shape).transpose(0, 1) for states in (query, key, value)
        ]  # (B, H, n, C)
        output = functional.scaled_dot_product_attention(
            *rows, is_causal=True, scale=scaling, dropout_p=dropout
        )
        return output.transpose(1, 2).flatten(0, 1)[None]  # (1, N, H, C)
    parts = zip(*(states.split(packing.lengths, dim=2) for states in (query, key, value)), strict=True)
    outputs = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, dropout_p=dropout)
        for q, k, v in parts
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)  # (1, N, H, C)


def _varlen(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None) -> Tensor:
    """One launch of torch's variable-length kernel (CUDA, half precision): (1, H, N, C) to (1, N, H, C)."""
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))  # (N, H, C)
    longest = max(packing.lengths)
    cumulative = packing.cumulative
    output = varlen_attn(
        query, key, value, cumulative, cumulative, longest, longest, scale=scaling, window_size=(-1, 0)
    )
    assert isinstance(output, Tensor)
    return output[None]  # (1, N, H, C)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
