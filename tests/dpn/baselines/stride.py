"""Stride: every n-th visual token of an image stays, in front of one decoder layer.

Shapes: N packed rows before and M after, D model width.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from dpn.layout import Layout
from dpn.method import FixedRateConfig, check_places
from dpn.reducer import Boundary, TokenReducer
from dpn.routing import Routing
from dpn.selection import keep_rows


@dataclass(frozen=True, kw_only=True)
class StrideConfig(FixedRateConfig):
    """Where tokens are dropped, and how many."""

    method: ClassVar[str] = "stride"
    may_change: ClassVar[tuple[str, ...]] = ("every",)

    layer: int = 8
    """Tokens are dropped in front of this decoder layer, counted from 0."""
    every: int = 4
    """One of so many tokens stays."""
    position_mode: str = "keep"
    """Positions after dropping."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_places((self.layer,))
        if self.every < 1:
            raise ValueError(f"every must be 1 or more, got {self.every}")

    @property
    def places(self) -> tuple[int, ...]:
        return (self.layer,)

    @property
    def shares(self) -> tuple[float, ...]:
        return (1 / self.every,)


class Stride(TokenReducer[StrideConfig]):
    """Keeps the first token of an image, and every n-th after it."""

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Keep every n-th token: (N, D) to (M, D)."""
        return keep_rows(
            hidden, layout, [np.arange(0, span.length, self.config.every) for span in layout.spans]
        )
