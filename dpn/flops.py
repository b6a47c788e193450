"""Counting FLOPs from the tokens that every layer saw.

Each figure names its counting; none is compared across them.

"paper": Eq. 8 of the paper, multiply-adds counted once, two FFN matrices, visual tokens only.
"full": all tokens, three FFN matrices, key/value projections at their own width, routers.
Neither counts the vision tower, the projector, the head or decoding steps; those are rows of their own in a
benchmark.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def count_flops(
    tokens_per_layer: Sequence[float], *, hidden_size: int, intermediate_size: int, ffn_matrices: int = 2
) -> int:
    """Sum 4 n d^2 + 2 n^2 d + k n d m over the layers (Eq. 8; k is `ffn_matrices`, 2 in the paper).

    Tokens may be a mean or a share ("keep 40 % of 512"): a fraction is counted as it is, the sum is rounded.

    Raises:
        ValueError: a count or size that is negative, no finite number or a bool, or a size with a fraction.

    >>> count_flops([576] * 32, hidden_size=4096, intermediate_size=11008)
    2986076012544
    >>> count_flops([512] * 3 + [204.8] * 29, hidden_size=4096, intermediate_size=11008) // 10**7
    119215
    """
    d, m = _size("hidden_size", hidden_size), _size("intermediate_size", intermediate_size)
    k = _size("ffn_matrices", ffn_matrices)
    counts = [n if type(n) is int and n >= 0 else _amount("tokens_per_layer", n) for n in tokens_per_layer]
    return round(sum(4 * n * d * d + 2 * n * n * d + k * n * d * m for n in counts))


def _size(name: str, value: float) -> int:
    """Return a size as Python's own int, which never overflows."""
    size = value if type(value) is int and value >= 0 else _amount(name, value)
    if not isinstance(size, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return size


def _amount(name: str, value: float) -> float:
    """Return a number of any kind as Python's own; a whole one as an int, which stays exact."""
    is_bool = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    try:
        is_good = not is_bool and math.isfinite(value) and value >= 0
    except (TypeError, OverflowError):  # no number, or one that no float can hold
        is_good = False
    if not is_good:
        raise ValueError(f"{name} must be finite and 0 or more, got {value!r}")
    return int(value) if int(value) == value else float(value)


def visual_flops(tokens: np.ndarray, *, hidden_size: int, intermediate_size: int) -> np.ndarray:
    """Count what one layer does with visual tokens (Eq. 8): any shape to the same, float64."""
    n, d = tokens.astype(np.float64), hidden_size
    return 4 * n * d * d + 2 * n * n * d + 2 * n * d * intermediate_size


def visual_cost(visual_tokens: np.ndarray, *, hidden_size: int, intermediate_size: int) -> np.ndarray:
    """Share of the dense visual FLOPs (Eq. 8) that routes cost: tokens (B, layers) to float64 (B,).

    The first layer is never pooled, so its count is the dense one; samples without visual tokens cost 1.
    """
    shares = cost_shares(visual_tokens, hidden_size=hidden_size, intermediate_size=intermediate_size)
    return shares.mean(1)


def stage_cost(
    per_stage: Sequence[np.ndarray],
    layers: Sequence[int],
    num_layers: int,
    *,
    hidden_size: int,
    intermediate_size: int,
) -> np.ndarray:
    """Split `visual_cost` by stages: S + 1 counts (B,) of visual tokens to float64 (S + 1, B)."""
    counts = np.stack(per_stage, axis=1)  # (B, S + 1)
    shares = cost_shares(counts, hidden_size=hidden_size, intermediate_size=intermediate_size)
    return (shares * np.diff([0, *layers, num_layers]) / num_layers).T


def cost_shares(visual_tokens: np.ndarray, *, hidden_size: int, intermediate_size: int) -> np.ndarray:
    """FLOPs of a layer relative to the first one of its row: tokens (B, any) to float64 of that shape.

    Samples without visual tokens have 1 everywhere.
    """
    flops = visual_flops(visual_tokens, hidden_size=hidden_size, intermediate_size=intermediate_size)
    dense = flops[:, :1]
    return np.divide(flops, dense, out=np.ones_like(flops), where=dense > 0)


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """The sizes that the full counting needs."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    num_routers: int = 0
    num_experts: int = 3
    router_width: int = 0
    """Width of what a router reads, hidden_size or twice that; 0 means hidden_size."""


def count_full_flops(tokens_per_layer: Sequence[int], shape: DecoderShape) -> int:
    """Count a prefill with text and routing tokens, multiply-adds once.

    Causal attention is counted in full (n^2).
    """
    d, m = shape.hidden_size, shape.intermediate_size
    key_value = d * shape.num_key_value_heads // shape.num_attention_heads
    per_token = 2 * d * d + 2 * d * key_value + 3 * d * m
    layers = sum(n * per_token + 2 * n * n * d for n in map(int, tokens_per_layer))
    width = shape.router_width or d
    return layers + shape.num_routers * (width * (width // 4) + (width // 4) * shape.num_experts)
