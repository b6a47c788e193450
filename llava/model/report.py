"""What the decoder did, in numbers: per sample for evaluation, per batch for training logs.

Shapes: B samples, S DPE layers, E experts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llava.model.reduction import (
    UNROUTED,
    DecoderShape,
    DpnConfig,
    FixedRateConfig,
    PyramidLlamaConfig,
    Routing,
    count_flops,
    count_full_flops,
    expected_rates,
    per_layer,
    reducer_config,
)


class SampleReport(NamedTuple):
    """What the decoder did with one prompt."""

    route: tuple[str, ...]
    """Kernel of every DPE or static pooling, () for other methods and without a reduction."""
    probabilities: tuple[tuple[float, ...], ...]
    """Router probabilities of every DPE, () where there are no routers."""
    tokens_per_layer: tuple[int, ...]
    """Prompt tokens that every decoder layer processed."""
    visual_tokens_per_layer: tuple[int, ...]
    """Visual tokens among them."""


def report(
    routing: Routing | None, *, tokens: Sequence[int], visual_tokens: Sequence[int], num_layers: int
) -> list[SampleReport]:
    """Describe a prefill sample by sample.

    Args:
        routing: what was decided for every sample, or for every beam of every sample; None for a plain
            decoder.
        tokens: prompt tokens of every sample in front of the decoder.
        visual_tokens: visual tokens among them.
        num_layers: decoder layers.
    """
    if routing is None:
        pairs = zip(tokens, visual_tokens, strict=True)
        return [
            SampleReport((), (), (count,) * num_layers, (visual,) * num_layers) for count, visual in pairs
        ]
    all_tokens = per_layer(routing.token_counts, routing.layers, num_layers).tolist()
    all_visual = per_layer(routing.visual_counts, routing.layers, num_layers).tolist()
    samples = len(all_tokens)
    probabilities = (
        routing.probabilities.transpose(0, 1).tolist()  # (B, S, E)
        if routing.has_routers
        else [()] * samples
    )
    return [
        SampleReport(
            routing.route_names(row),
            tuple(tuple(experts) for experts in probabilities[row]),
            tuple(all_tokens[row]),
            tuple(all_visual[row]),
        )
        for row in range(0, samples, samples // len(tokens))  # beams follow one another
    ]


def flops(sample: SampleReport, config: PyramidLlamaConfig) -> dict[str, tuple[int, int]]:
    """Count what a sample's prefill cost and what a dense one would have, in both countings of dpn/flops.py.

    Multiply-adds, as (cost, dense). The paper's counting knows nothing but visual tokens; the full one also
    counts what routers cost, and what it takes to rank tokens.
    """
    d, m, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    reduction = reducer_config(config.reduction)
    routers = len(sample.route) if isinstance(reduction, DpnConfig) else 0
    shape = DecoderShape(
        hidden_size=d,
        intermediate_size=m,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads or config.num_attention_heads,
    )
    visual, tokens = sample.visual_tokens_per_layer, sample.tokens_per_layer
    is_double = isinstance(reduction, DpnConfig) and reduction.router_source == "both"
    routed = replace(shape, num_routers=routers, router_width=2 * d if is_double else d)
    deciding = 0
    if isinstance(reduction, FixedRateConfig):
        deciding = reduction.deciding_flops([tokens[place - 1] for place in reduction.places], shape)
    return {
        "paper": (
            count_flops(visual, hidden_size=d, intermediate_size=m),
            count_flops([visual[0]] * layers, hidden_size=d, intermediate_size=m),
        ),
        "full": (count_full_flops(tokens, routed) + deciding, count_full_flops([tokens[0]] * layers, shape)),
    }


def flops_ratios(sample: SampleReport, config: PyramidLlamaConfig) -> dict[str, float]:
    """Give the share of the dense prefill FLOPs that a sample cost, in both countings of dpn/flops.py.

    A sample without visual tokens costs 1.0 in the paper's counting, which knows nothing else.
    """
    counted = flops(sample, config)
    return {name: cost / dense if dense else 1.0 for name, (cost, dense) in counted.items()}


def routing_metrics(routing: Routing, config: DpnConfig, cost: np.ndarray) -> dict[str, Tensor]:
    """Summarise a training batch for the log: shares of the experts, rate, entropy, cost.

    Detached scalars on the device.

    A batch in which nothing was routed has nothing to report.

    Args:
        routing: decisions of the batch.
        config: names the experts and the rates.
        cost: (B,) share of the dense visual FLOPs per sample.
    """
    routed = routing.is_routed  # (S, B)
    if not routed.any():
        return {}
    probabilities = routing.probabilities.detach()  # (S, B, E)
    metrics = {"visual_flops": float(cost[routed.any(0)].mean())}
    for layer, choice in zip(routing.layers, routing.choices, strict=True):
        chosen = choice[choice != UNROUTED]
        for index, (rows, columns) in enumerate(routing.kernels if len(chosen) else ()):
            metrics[f"share_{rows}x{columns}@{layer}"] = float((chosen == index).mean())
    weight = torch.from_numpy(routed).to(probabilities.device)
    entropy = -(probabilities * probabilities.clamp(min=1e-9).log()).sum(-1)  # (S, B)
    count = weight.sum()
    return {
        **{name: torch.tensor(value) for name, value in metrics.items()},
        "rate": (expected_rates(probabilities, config) * weight).sum() / count,
        "router_entropy": (entropy * weight).sum() / count,
    }
