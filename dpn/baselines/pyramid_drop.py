"""PyramidDrop: a share of the visual tokens is dropped at the end of every stage.

Xing et al., *PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual Redundancy
Reduction*, CVPR 2025, section 3.

Tokens are ranked by what the last token of the instruction attends to among them, with the query and key
projections of the layer that follows: the states are normalised and projected as that layer will do, one
softmax row is made per sample and averaged over its heads. Its keys are made twice, once to rank, and once
for those that stay. Used in training and at inference; positions are renumbered in every stage (release).

The released training code averages the rows of the tokens in front of all answers of a dialogue. Here it is
the token in front of the first one, in training as at inference, so that no answer decides what the model
sees, and both rank alike.

Shapes: B samples, N packed rows before and M after, H heads, G key/value heads, C head width, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from dpn.experts import to_device
from dpn.flops import DecoderShape
from dpn.layout import Layout
from dpn.method import (
    POSITION_MODES,
    FixedRateConfig,
    check_choice,
    check_keeps,
    check_one_per_layer,
    check_places,
)
from dpn.reducer import Boundary, TokenReducer
from dpn.routing import Routing
from dpn.selection import keep_share
from dpn.tap import last_row_attention


@dataclass(frozen=True, kw_only=True)
class PyramidDropConfig(FixedRateConfig):
    """Where tokens are dropped, how many stay, and by which layer's attention they are ranked."""

    method: ClassVar[str] = "pyramid_drop"
    may_change: ClassVar[tuple[str, ...]] = ("keeps",)

    layers: tuple[int, ...] = (8, 16, 24)
    """Decoder layers in front of which tokens are dropped, counted from 0."""
    keeps: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Share of the tokens there that stays, one per layer: with the defaults 288, 144 and 72 of 576."""
    score: str = "next"
    """next ranks by the projections of the layer that follows (release); attention by the attention of the
    layer in front, which costs next to nothing."""
    position_mode: str = "renumber"
    """Positions after dropping: renumber (release) or keep."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_places(self.layers)
        check_one_per_layer("keeps", self.keeps, self.layers)
        check_keeps("keeps", self.keeps)
        check_choice("score", self.score, ("next", "attention"))
        check_choice("position_mode", self.position_mode, POSITION_MODES)

    @property
    def places(self) -> tuple[int, ...]:
        """The layers."""
        return self.layers

    @property
    def shares(self) -> tuple[float, ...]:
        """The keeps."""
        return self.keeps

    def deciding_flops(self, tokens: Sequence[int], shape: DecoderShape) -> int:
        """Count one row of scores, n d, and with `score=next` the keys and one query that it is made of."""
        d = shape.hidden_size
        key_value = d * shape.num_key_value_heads // shape.num_attention_heads
        projections = sum(n * d * key_value + d * d for n in tokens) if self.score == "next" else 0
        return sum(tokens) * d + projections


class PyramidDrop(TokenReducer[PyramidDropConfig]):
    """Drops what the instruction's last token attends to least, stage after stage."""

    @property
    def needs_attention(self) -> bool:
        """Of the layers in front, where they rank."""
        return self.config.score == "attention"

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Keep the share of this place of every image's tokens: (N, D) to (M, D)."""
        scores = boundary.attention
        if scores is None:
            scores = attention_to_come(boundary.next_layer, hidden, layout, boundary.rotary)
        return keep_share(hidden, layout, scores, self.config.keeps[index])


@torch.no_grad()
def attention_to_come(layer: Any, hidden: Tensor, layout: Layout, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Give what the last prompt tokens will attend to in a layer, were it to see these rows: (N,) float32.

    Args:
        layer: a LlamaDecoderLayer. Its modules are called as modules, so that ZeRO-3 gathers their weights.
        hidden: (N, D) what it would get.
        layout: of the rows.
        rotary: (1, N, C) twice, of the rows' positions.
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden[None])  # (1, N, D)
    last = to_device(layout.last_rows, normed.device)
    key = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))  # (1, N, G, C)
    query = attention.q_proj(normed[:, last]).unflatten(-1, (-1, attention.head_dim))  # (1, B, H, C)
    cosine, sine = (part.to(key.device) for part in rotary)
    _, key = apply_rotary_pos_emb(key, key, cosine, sine, unsqueeze_dim=2)
    query, _ = apply_rotary_pos_emb(query, query, cosine[:, last], sine[:, last], unsqueeze_dim=2)
    return last_row_attention(query[0], key[0], layout, attention.scaling)
