"""FastV (Chen et al., *An Image is Worth 1/2 Tokens After Layer 2*, ECCV 2024, section 4 and Fig. 5).

In front of decoder layer K the share R of the visual tokens that got the least attention in layer K - 1 is
dropped, for all later layers.

The paper's text averages the attention that a token receives over all other tokens; its released code takes
the row of the last token alone, mean over heads, and that is what its numbers were made with. So do we. As
in the release, tokens keep the positions that they had. Layers are counted from 0: with K = 2, layers 0 and
1 see everything.

Shapes: N packed rows before and M after, D model width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dpn.flops import DecoderShape
from dpn.layout import Layout
from dpn.method import POSITION_MODES, FixedRateConfig, check_choice, check_places
from dpn.reducer import Boundary, TokenReducer
from dpn.routing import Routing
from dpn.selection import keep_share


@dataclass(frozen=True, kw_only=True)
class FastVConfig(FixedRateConfig):
    """Where tokens are dropped, and how many. The defaults are the paper's headline setting."""

    method: ClassVar[str] = "fastv"
    may_change: ClassVar[tuple[str, ...]] = ("ratio",)

    layer: int = 2
    """K: tokens are dropped in front of this decoder layer, by the attention of the one before."""
    ratio: float = 0.5
    """R: the share of every image's tokens that goes; 0 keeps all."""
    position_mode: str = "keep"
    """Positions after dropping: keep (release) or renumber."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_places((self.layer,))
        check_choice("position_mode", self.position_mode, POSITION_MODES)
        if not (math.isfinite(self.ratio) and 0 <= self.ratio < 1):
            raise ValueError(
                f"ratio is the share of the tokens that goes, from 0 to below 1, got {self.ratio}"
            )

    @property
    def places(self) -> tuple[int, ...]:
        """Only (K,)."""
        return (self.layer,)

    @property
    def shares(self) -> tuple[float, ...]:
        """Only (1 - R,)."""
        return (1 - self.ratio,)

    def deciding_flops(self, tokens: Sequence[int], shape: DecoderShape) -> int:
        """Count one row of scores: n d."""
        return sum(tokens) * shape.hidden_size if self.ratio else 0


class FastV(TokenReducer[FastVConfig]):
    """Drops what the last prompt token attends to least."""

    @property
    def needs_attention(self) -> bool:
        """Of layer K - 1, unless nothing is dropped."""
        return self.config.ratio > 0

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Keep the share 1 - R of every image's tokens: (N, D) to (M, D)."""
        if boundary.attention is None:
            return hidden, layout
        return keep_share(hidden, layout, boundary.attention, 1 - self.config.ratio)
