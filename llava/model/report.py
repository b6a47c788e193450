"""What the decoder did with every sample, in numbers. Shapes: B samples, S DPE layers, E experts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from llava.model.reduction import (
    DecoderShape,
    DpnConfig,
    FixedRateConfig,
    PyramidLlamaConfig,
    Routing,
    count_flops,
    count_full_flops,
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
    visual_grids: tuple[tuple[int, int], ...] = ()
    """Rows and columns of every visual span in front of the decoder; () where `report` wasn't told."""
    spared: int = 0
    """Visual tokens that plain LLaVA's decoder would read beside them, which are left out in front of it."""

    @property
    def dense_visual_tokens(self) -> int:
        """Visual tokens that every layer of plain LLaVA's decoder would read."""
        return self.visual_tokens_per_layer[0] + self.spared


def report(
    routing: Routing | None,
    *,
    tokens: Sequence[int],
    visual_tokens: Sequence[int],
    num_layers: int,
    visual_grids: Sequence[tuple[tuple[int, int], ...]] | None = None,
    spared: Sequence[int] | None = None,
) -> list[SampleReport]:
    """Describe a prefill sample by sample.

    Args:
        routing: what was decided for every sample, or for every beam of every sample; None for a plain
            decoder.
        tokens: prompt tokens of every sample in front of the decoder.
        visual_tokens: visual tokens among them.
        num_layers: decoder layers.
        visual_grids: rows and columns of every sample's visual spans.
        spared: visual tokens that were left out of every sample in front of the decoder; None for none.
    """
    grids = [()] * len(tokens) if visual_grids is None else visual_grids
    spared = spared or [0] * len(tokens)
    if routing is None:
        known = zip(tokens, visual_tokens, grids, spared, strict=True)
        return [
            SampleReport((), (), (count,) * num_layers, (visual,) * num_layers, spans, left)
            for count, visual, spans, left in known
        ]
    all_tokens = per_layer(routing.token_counts, routing.layers, num_layers).tolist()
    all_visual = per_layer(routing.visual_counts, routing.layers, num_layers).tolist()
    samples = len(all_tokens)
    beams = samples // len(tokens)  # those of a sample follow one another
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
            spans,
            left,
        )
        for row, spans, left in zip(range(0, samples, beams), grids, spared, strict=True)
    ]


def flops(sample: SampleReport, config: PyramidLlamaConfig) -> dict[str, tuple[int, int]]:
    """Count what a sample's prefill cost and what a dense one would have, in both countings of dpn/flops.py.

    Multiply-adds, as (cost, dense). The paper's counting knows nothing but visual tokens; the full one also
    counts what routers cost, and what it takes to rank tokens. Dense is plain LLaVA's decoder, which reads
    every feature of the tower as a token, also where fewer reach the decoder.
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
    dense_visual, dense_tokens = sample.dense_visual_tokens, tokens[0] + sample.spared
    is_double = isinstance(reduction, DpnConfig) and reduction.router_source == "both"
    routed = replace(shape, num_routers=routers, router_width=2 * d if is_double else d)
    deciding = 0
    if isinstance(reduction, FixedRateConfig):
        deciding = reduction.deciding_flops([tokens[place - 1] for place in reduction.places], shape)
    return {
        "paper": (
            count_flops(visual, hidden_size=d, intermediate_size=m),
            count_flops([dense_visual] * layers, hidden_size=d, intermediate_size=m),
        ),
        "full": (
            count_full_flops(tokens, routed) + deciding,
            count_full_flops([dense_tokens] * layers, shape),
        ),
    }


def flops_ratios(sample: SampleReport, config: PyramidLlamaConfig) -> dict[str, float]:
    """Give the share of the dense prefill FLOPs that a sample cost, in both countings of dpn/flops.py.

    A sample without visual tokens costs 1.0 in the paper's counting, which knows nothing else.
    """
    counted = flops(sample, config)
    return {name: cost / dense if dense else 1.0 for name, (cost, dense) in counted.items()}
