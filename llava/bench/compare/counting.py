"""Three countings of one prefill, in one unit: multiply-adds, each counted once.

"paper": Eq. 8 of the paper (visual tokens alone, two FFN matrices), from tokens per layer.
"full": all tokens, three FFN matrices, what it takes to decide (dpn/flops.py), from tokens per layer.
"measured": what `torch.utils.flop_counter` sees of a real pass. It counts a multiply-add as two FLOPs, so its
figure is halved. It sees matrix products, convolutions and attention kernels that it knows; it counts causal
attention in full, as "full" does. Norms, rotary embeddings, softmax, sorting, gathering, pooling and all else
that moves data cost time and are in no counting.

Shapes: B samples, L decoder layers, H heads, Q queries, P keys, C head width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from llava.bench.compare.contenders import Contender
from llava.bench.costs import cache_bytes
from llava.bench.inputs import Batch
from llava.bench.variants import Routes, check_routes
from llava.model.reduction import PyramidOutput
from llava.model.report import flops, report

COUNTINGS = ("paper", "full", "measured")


def _cpu_attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count torch's attention on CPUs, which its counter lacks, as the counter counts other kernels.

    Shapes of (B, H, Q, C), (B, H, P, C) and (B, H, P, C) to two FLOPs for each multiply-add.
    """
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


LACKING = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops}
"""Attention kernels that torch's counter doesn't know, and our formulas."""


class UnseenAttention(TorchDispatchMode):
    """Notes attention kernels that a counter passes over."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.counter = counter
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and keep its name where it is attention that isn't counted."""
        packet = func._overloadpacket
        is_attention = "attention" in str(packet) or "attn" in str(packet)
        if is_attention and packet not in self.counter.flop_registry:
            self.names.add(str(packet))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Facts:
    """What one prefill of a batch costs besides time."""

    encode: float
    """Multiply-adds of tower and projector, measured."""
    prefill: Mapping[str, float]
    """Multiply-adds of the decoder without its head, by counting."""
    dense: Mapping[str, float]
    """The same of plain LLaVA's decoder, for the countings that don't need a run."""
    unseen: tuple[str, ...]
    """Attention kernels that ran and that "measured" lacks."""
    visual_tokens: tuple[float, ...]
    """(L,) mean over the batch."""
    tokens: tuple[float, ...]
    """(L,) of text and image together."""
    cache_bytes: int
    """Keys and values of the prompts."""

    @property
    def share(self) -> float:
        """Share of the dense visual FLOPs (Eq. 8), as it came out."""
        return self.prefill["paper"] / self.dense["paper"]


@torch.no_grad()
def count(contender: Contender, batch: Batch, routes: Routes | None) -> Facts:
    """Run the two halves of a prefill, images and decoder, under torch's counter.

    Raises:
        ValueError: the routers didn't take the contender's route.
    """
    model, given = contender.model, contender.inputs(batch)
    with FlopCounterMode(display=False, custom_mapping=LACKING) as encode, UnseenAttention(encode) as first:
        spliced = model.splice(given["input_ids"], None, None, given["images"], None, "left")
    merged = {
        "inputs_embeds": spliced.inputs_embeds,
        "attention_mask": spliced.attention_mask,
        "mm_token_type_ids": spliced.mm_token_type_ids,
        "visual_grids": spliced.visual_grids,
    }
    with FlopCounterMode(display=False, custom_mapping=LACKING) as prefill, UnseenAttention(prefill) as then:
        output = model.model(**merged, use_cache=True)
    assert output.past_key_values is not None
    routing = output.routing if isinstance(output, PyramidOutput) else None
    check_routes(contender.variant, routing, routes)
    samples = report(
        routing,
        tokens=spliced.lengths,
        visual_tokens=spliced.visual_counts,
        num_layers=model.config.num_hidden_layers,
        spared=spliced.spared,
    )
    counted = [flops(sample, model.config) for sample in samples]
    cost, dense = ({name: sum(one[name][side] for one in counted) for name in counted[0]} for side in (0, 1))
    return Facts(
        encode=encode.get_total_flops() / 2,
        prefill={**cost, "measured": prefill.get_total_flops() / 2},
        dense=dense,
        unseen=tuple(sorted(first.names | then.names)),
        visual_tokens=tuple(np.mean([sample.visual_tokens_per_layer for sample in samples], 0).tolist()),
        tokens=tuple(np.mean([sample.tokens_per_layer for sample in samples], 0).tolist()),
        cache_bytes=cache_bytes(output.past_key_values),
    )
