"""What the decoder did with every sample, in numbers. Shapes: B samples, S DPE layers, E experts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from llava.model.reduction import (
    DecoderShape,
    PyramidLlamaConfig,
    Routing,
    count_flops,
    count_full_flops,
    per_layer,
)


class SampleReport(NamedTuple):
    """What the decoder did with one prompt."""

    route: tuple[str, ...]
    """Kernel of every DPE, () without a reduction."""
    probabilities: tuple[tuple[float, ...], ...]
    """Router probabilities of every DPE."""
    tokens_per_layer: tuple[int, ...]
    """Prompt tokens that every decoder layer processed."""
    visual_tokens_per_layer: tuple[int, ...]
    """Visual tokens among them."""
    visual_grids: tuple[tuple[int, int], ...] = ()
    """Rows and columns of every visual span in front of the decoder; () where `report` wasn't told."""


def report(
    routing: Routing | None,
    *,
    tokens: Sequence[int],
    visual_tokens: Sequence[int],
    num_layers: int,
    visual_grids: Sequence[tuple[tuple[int, int], ...]] | None = None,
) -> list[SampleReport]:
    """Describe a prefill sample by sample.

    Args:
        routing: decisions of the DPEs for every sample, or for every beam of every sample; None for a plain
            decoder.
        tokens: prompt tokens of every sample in front of the decoder.
        visual_tokens: visual tokens among them.
        num_layers: decoder layers.
        visual_grids: rows and columns of every sample's visual spans.
    """
    grids = [()] * len(tokens) if visual_grids is None else visual_grids
    if routing is None:
        triples = zip(tokens, visual_tokens, grids, strict=True)
        return [
            SampleReport((), (), (count,) * num_layers, (visual,) * num_layers, spans)
            for count, visual, spans in triples
        ]
    all_tokens = per_layer(routing.token_counts, routing.layers, num_layers).tolist()
    all_visual = per_layer(routing.visual_counts, routing.layers, num_layers).tolist()
    probabilities = routing.probabilities.transpose(0, 1).tolist()  # (B, S, E)
    beams = len(all_tokens) // len(tokens)  # of one sample, they follow one another
    return [
        SampleReport(
            routing.route_names(row),
            tuple(tuple(experts) for experts in probabilities[row]),
            tuple(all_tokens[row]),
            tuple(all_visual[row]),
            grids[row // beams],
        )
        for row in range(0, len(all_tokens), beams)
    ]


def flops(sample: SampleReport, config: PyramidLlamaConfig) -> dict[str, tuple[int, int]]:
    """Count what a sample's prefill cost and what a dense one would have, in both countings of dpn/flops.py.

    Multiply-adds, as (cost, dense). The paper's counting knows nothing but visual tokens.
    """
    d, m, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    routers = len(sample.route)
    shape = DecoderShape(
        hidden_size=d,
        intermediate_size=m,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads or config.num_attention_heads,
    )
    visual, tokens = sample.visual_tokens_per_layer, sample.tokens_per_layer
    is_double = routers > 0 and (config.reduction or {}).get("router_source") == "both"
    routed = replace(shape, num_routers=routers, router_width=2 * d if is_double else d)
    return {
        "paper": (
            count_flops(visual, hidden_size=d, intermediate_size=m),
            count_flops([visual[0]] * layers, hidden_size=d, intermediate_size=m),
        ),
        "full": (count_full_flops(tokens, routed), count_full_flops([tokens[0]] * layers, shape)),
    }


def flops_ratios(sample: SampleReport, config: PyramidLlamaConfig) -> dict[str, float]:
    """Give the share of the dense prefill FLOPs that a sample cost, in both countings of dpn/flops.py.

    A sample without visual tokens costs 1.0 in the paper's counting, which knows nothing else.
    """
    counted = flops(sample, config)
    return {name: cost / dense if dense else 1.0 for name, (cost, dense) in counted.items()}
