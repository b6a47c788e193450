"""Truncate: visual tokens exist in the early layers only; all of them go in front of layer K.

A control: what the later layers still need of the image must by then be in the text. FastV's paper looks at
the same limit (section 3: visual tokens get little attention in deep layers).

Shapes: N packed rows before and M after, D model width.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from dpn.layout import Layout
from dpn.method import POSITION_MODES, FixedRateConfig, check_choice, check_places
from dpn.reducer import Boundary, TokenReducer
from dpn.routing import Routing
from dpn.selection import keep_rows


@dataclass(frozen=True, kw_only=True)
class TruncateConfig(FixedRateConfig):
    """Where the visual tokens end."""

    method: ClassVar[str] = "truncate"

    layer: int = 16
    """K: the first decoder layer without visual tokens, counted from 0."""
    position_mode: str = "keep"
    """Positions of the text behind: keep or renumber."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_places((self.layer,))
        check_choice("position_mode", self.position_mode, POSITION_MODES)

    @property
    def places(self) -> tuple[int, ...]:
        """Only (K,)."""
        return (self.layer,)

    @property
    def shares(self) -> tuple[float, ...]:
        """Nothing is left."""
        return (0.0,)


class Truncate(TokenReducer[TruncateConfig]):
    """Drops every visual token; a prompt that ends with an image keeps its last one, to answer from."""

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Keep the text: (N, D) to (M, D)."""
        return keep_rows(hidden, layout, [np.zeros(0, np.int64) for _ in layout.spans])
