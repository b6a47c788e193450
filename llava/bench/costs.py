"""What a variant should cost: FLOPs, and bytes of its key/value cache.

Shapes: B samples, G key/value heads, P cells of a layer, C head width.
"""

import numpy as np
from transformers.cache_utils import Cache

from llava.bench.shapes import Shape
from llava.model.config import LlavaConfig
from llava.model.reduction import Routing, per_layer
from llava.model.report import flops_ratios, report


def flops_shares(routing: Routing | None, config: LlavaConfig, shape: Shape, size: int) -> dict[str, float]:
    """Give the share of the dense prefill FLOPs that a batch of B took, in both countings of dpn/flops.py.

    Prompts are equally long, so the batch's share is the mean of its samples'.
    """
    samples = report(
        routing,
        tokens=[shape.tokens] * size,
        visual_tokens=[shape.visual] * size,
        num_layers=shape.num_layers,
    )
    shares = [flops_ratios(sample, config) for sample in samples]
    return {counting: float(np.mean([share[counting] for share in shares])) for counting in ("paper", "full")}


def tokens_of_layers(routing: Routing | None, shape: Shape, size: int) -> np.ndarray:
    """Count the tokens of every sample in every layer: (B, layers)."""
    if routing is None:
        return np.full((size, shape.num_layers), shape.tokens)
    return per_layer(routing.token_counts, routing.layers, shape.num_layers)


def cache_bytes(cache: Cache) -> int:
    """Sum the memory that a cache holds, also where a tensor shows only part of its storage."""
    storages = [
        getattr(layer, name).untyped_storage() for layer in cache.layers for name in ("keys", "values")
    ]
    return sum(storage.nbytes() for storage in {storage.data_ptr(): storage for storage in storages}.values())


def expected_cache_bytes(tokens: np.ndarray, shape: Shape, bytes_per_number: int) -> dict[str, int]:
    """Give the bytes of keys and values that the tokens (B, layers) need.

    Returns:
        `cells`: every layer a rectangle of B x its longest sample, which is what a batch can decode from;
        `tokens`: no padding at all.
    """
    per_token = 2 * shape.num_kv_heads * (shape.hidden_size // shape.num_heads) * bytes_per_number
    rectangles = len(tokens) * tokens.max(0)  # (layers,)
    return {"cells": int(rectangles.sum()) * per_token, "tokens": int(tokens.sum()) * per_token}
