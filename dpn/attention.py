"""Attention among packed samples: they lie one after another and never see each other.

A reduced decoder reaches all of its attention through this file. `attn_implementation` names the kernel, and
the same names choose the attention over padded caches in decoding:

    unset, "packed"      torch's variable-length kernel on CUDA in half precision, else as "sdpa"
    "sdpa"               one SDPA per sample, or one for all where their lengths are equal
    "eager"              scores, softmax in float32 and weighted sum written out, per sample: the reference
    "flash_attention_2"  one launch of flash-attn's variable-length kernel, which is an extra package

In float32 on a CPU all give the same states within 2e-5 of their scale (tests/dpn/test_attention.py).

Shapes: B samples, N packed rows, H heads, G key/value heads, Q query length, P cells of a cache, C
head width.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from dpn.experts import to_device
from dpn.layout import Layout
from dpn.methods import reducer_config
from dpn.tap import AttentionTap

PACKED = "packed"
IMPLEMENTATIONS = {
    PACKED: PACKED,
    "sdpa": "packed_sdpa",
    "eager": "packed_eager",
    "flash_attention_2": "packed_fa2",  # not "flash": transformers would look for a kernel of that name
}
"""What `attn_implementation` may say with a reduction, and the function registered for it."""


@dataclass(frozen=True)
class Packing:
    """Where samples begin and end in a packed sequence, made once per stage."""

    lengths: tuple[int, ...]
    cumulative: Tensor
    """(B + 1,) int32 on the device of the stage's first layer, for variable-length kernels."""

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "Packing":
        """Describe one stage's layout."""
        return cls(layout.lengths, to_device(layout.starts.astype("int32"), device))


def packed_implementation(requested: str | None) -> str:
    """Give the name under which the function for `attn_implementation=requested` is registered.

    transformers asks for it when it builds a model and when it changes one (`set_attn_implementation`).

    Raises:
        ValueError: unknown, or flash-attn isn't installed.
    """
    if requested is not None and requested in IMPLEMENTATIONS.values():
        return requested
    if requested is not None and requested not in IMPLEMENTATIONS:
        raise ValueError(
            f"attn_implementation={requested!r} isn't supported with a reduction, whose samples lie packed "
            f"one after another; choose one of {', '.join(IMPLEMENTATIONS)}, or leave it unset (SDPA on CPU, "
            f"torch's variable-length kernel on CUDA in half precision)"
        )
    if requested == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise ValueError(
            "attn_implementation='flash_attention_2' needs the package flash-attn, which isn't installed; "
            "leave it unset to use torch's own variable-length kernel on CUDA in half precision"
        )
    return IMPLEMENTATIONS[requested or PACKED]


class PacksSamples:
    """A model whose samples lie packed where `config.reduction` acts in it; precedes transformers' class."""

    def get_correct_attn_implementation(
        self, requested_attention: str | None, is_init_check: bool = False
    ) -> str:
        """Translate `attn_implementation` where there is a reduction; ValueError for one that can't pack."""
        saved = self.config.reduction  # pyright: ignore[reportAttributeAccessIssue] - of the model
        if reducer_config(saved) is None:
            return super().get_correct_attn_implementation(  # pyright: ignore[reportAttributeAccessIssue]
                requested_attention, is_init_check
            )
        return packed_implementation(requested_attention)


Kernel = Callable[[Tensor, Tensor, Tensor, Packing, float, float], Tensor]
"""(1, H, N, C), keys and values (1, G, N, C), packing, scaling, dropout to (1, N, H, C)."""


def packed_attention(  # noqa: PLR0913, PLR0917 - transformers' signature
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packing: Packing | None = None,
    kv_sink: list[Tensor] | None = None,
    tap: AttentionTap | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    kernel: Kernel,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend causally within every sample of a packed sequence, or by the mask where there is no packing.

    Args:
        module: the attention layer, for its number of key/value groups.
        query: (1, H, N, C) packed, or (B, H, Q, C) in decoding.
        key: (1, G, N, C) or (B, G, P, C), rotated.
        value: as key.
        attention_mask: (B, 1, Q, P), only without packing.
        packing: boundaries of the samples.
        kv_sink: receives key and value, so that the decoder can put them into a cache.
        tap: receives what the last prompt tokens attend to.
        scaling: factor of the scores, C ** -0.5 where it is None.
        dropout: probability of dropping a weight.
        kernel: attends within packed samples.
        **kwargs: passed to SDPA in decoding.

    Returns:
        (1, N, H, C) or (B, Q, H, C), and None for the weights that are never given out.
    """
    if kv_sink is not None:
        kv_sink += [key, value]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if tap is not None:
        tap.fill(query, key, scale)
    if packing is None and kernel is _eager_per_sample:
        groups = query.shape[1] // key.shape[1]
        output = _eager(
            query, repeat_kv(key, groups), repeat_kv(value, groups), attention_mask, scale, dropout
        )
        return output.transpose(1, 2), None  # (B, Q, H, C)
    if packing is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    if torch.is_autocast_enabled(query.device.type):  # rotary embeddings leave queries and keys in float32
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return kernel(query, key, value, packing, scale, dropout), None


def _automatic(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, dropout: float
) -> Tensor:
    """Torch's variable-length kernel where it runs (CUDA, half precision, no dropout), else SDPA."""
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) and dropout == 0:
        return _varlen(query, key, value, packing, scale)
    return _sdpa_per_sample(query, key, value, packing, scale, dropout)


def _varlen(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float) -> Tensor:
    """One launch of torch's variable-length kernel."""
    query, key, value = _rows(query, *_repeated(query, key, value))  # (N, H, C)
    longest = max(packing.lengths)
    ends = packing.cumulative.to(query.device)
    output = varlen_attn(query, key, value, ends, ends, longest, longest, scale=scale, window_size=(-1, 0))
    assert isinstance(output, Tensor)
    return output[None]  # (1, N, H, C)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, dropout: float
) -> Tensor:
    """One launch of flash-attn's variable-length kernel, which reads grouped keys and values as they are.

    Raises:
        ValueError: not on CUDA, or not in half precision.
    """
    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"attn_implementation='flash_attention_2' runs on CUDA in float16 or bfloat16, but the model is "
            f"on {query.device} in {query.dtype}; load it with dtype=torch.bfloat16, or choose sdpa"
        )
    return flash_varlen(query, key, value, packing, scale, dropout)


def flash_varlen(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, dropout: float
) -> Tensor:
    """Call flash-attn: (1, H, N, C) and (1, G, N, C) twice to (1, N, H, C)."""
    from flash_attn import (  # noqa: PLC0415 - an extra # pyright: ignore[reportMissingImports]
        flash_attn_varlen_func,
    )

    longest, ends = max(packing.lengths), packing.cumulative.to(query.device)
    output = flash_attn_varlen_func(
        *_rows(query, key, value),  # (N, H, C), (N, G, C) twice
        ends,
        ends,
        longest,
        longest,
        dropout_p=dropout,
        softmax_scale=scale,
        causal=True,
    )
    return output[None]  # (1, N, H, C)


def _sdpa_per_sample(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, dropout: float
) -> Tensor:
    """One causal SDPA per sample, or one for all where their lengths are equal."""
    key, value = _repeated(query, key, value)
    attend = partial(functional.scaled_dot_product_attention, is_causal=True, scale=scale, dropout_p=dropout)
    if len(packing.lengths) == 1:
        return attend(query, key, value).transpose(1, 2)  # (1, N, H, C)
    if len(set(packing.lengths)) == 1:
        shape = (len(packing.lengths), packing.lengths[0])
        q, k, v = (
            states[0].unflatten(1, shape).transpose(0, 1) for states in (query, key, value)
        )  # (B, H, n, C)
        return attend(q, k, v).transpose(1, 2).flatten(0, 1)[None]  # (1, N, H, C)
    parts = zip(*(states.split(packing.lengths, dim=2) for states in (query, key, value)), strict=True)
    return torch.cat([attend(q, k, v) for q, k, v in parts], dim=2).transpose(1, 2)  # (1, N, H, C)


def _eager_per_sample(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, scale: float, dropout: float
) -> Tensor:
    """Eager attention sample by sample."""
    parts = [states.split(packing.lengths, dim=2) for states in (query, *_repeated(query, key, value))]
    outputs = []
    for q, k, v in zip(*parts, strict=True):
        future = torch.full((q.shape[2], q.shape[2]), float("-inf"), device=q.device, dtype=q.dtype).triu(1)
        outputs.append(_eager(q, k, v, future, scale, dropout))  # (1, H, n, C)
    return torch.cat(outputs, dim=2).transpose(1, 2)  # (1, N, H, C)


def _eager(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, dropout: float
) -> Tensor:
    """Write attention out: (B, H, Q, C), (B, H, P, C) twice and (..., Q, P) to be added, to (B, H, Q, C)."""
    scores = query @ key.transpose(-1, -2) * scale  # (B, H, Q, P)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return functional.dropout(weights, dropout) @ value


def _repeated(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat keys and values (1, G, N, C) for every head that shares them: (1, H, N, C)."""
    groups = query.shape[1] // key.shape[1]
    return repeat_kv(key, groups), repeat_kv(value, groups)


def _rows(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lay (1, H, N, C) out as variable-length kernels read it: (N, H, C)."""
    return query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1)


for _name, _kernel, _mask in (
    (PACKED, _automatic, sdpa_mask),
    ("packed_sdpa", _sdpa_per_sample, sdpa_mask),
    ("packed_eager", _eager_per_sample, eager_mask),
    ("packed_fa2", _flash, sdpa_mask),
):
    AttentionInterface.register(_name, partial(packed_attention, kernel=_kernel))
    AttentionMaskInterface.register(_name, _mask)
