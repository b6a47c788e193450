"""Random drop: a share of the visual tokens goes at every place, whatever they hold.

The control that any ranking has to beat.

While training every step draws anew, from torch's generator on the CPU (which training seeds per rank and
saves). At inference a sample's draw depends on `seed`, the place, the length of its prompt, and where its
image lies in it and how many tokens it has: on nothing of the batch around it, and on no answer behind it.
So samples of like shape share a draw; average over several seeds.

Shapes: N packed rows before and M after, D model width.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dpn.layout import Layout, VisualSpan
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
from dpn.selection import keep_rows, kept_of


@dataclass(frozen=True, kw_only=True)
class RandomDropConfig(FixedRateConfig):
    """Where tokens are dropped, and how many stay."""

    method: ClassVar[str] = "random"
    may_change: ClassVar[tuple[str, ...]] = ("keeps", "seed")

    layers: tuple[int, ...] = (8, 16, 24)
    """Decoder layers in front of which tokens are dropped, counted from 0."""
    keeps: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Share of every image's tokens there that stays, one per layer."""
    seed: int = 0
    """Of the draws at inference."""
    position_mode: str = "keep"
    """Positions after dropping: keep or renumber."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_places(self.layers)
        check_one_per_layer("keeps", self.keeps, self.layers)
        check_keeps("keeps", self.keeps)
        check_choice("position_mode", self.position_mode, POSITION_MODES)
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    @property
    def places(self) -> tuple[int, ...]:
        """The layers."""
        return self.layers

    @property
    def shares(self) -> tuple[float, ...]:
        """The keeps."""
        return self.keeps


class RandomDrop(TokenReducer[RandomDropConfig]):
    """Keeps tokens that a random number picks."""

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Keep the share of this place of every image's tokens: (N, D) to (M, D)."""
        share = self.config.keeps[index]
        kept = [self._draw(index, span, layout)[: kept_of(span.length, share)] for span in layout.spans]
        return keep_rows(hidden, layout, kept)

    def _draw(self, index: int, span: VisualSpan, layout: Layout) -> np.ndarray:
        """Put the tokens of a span in a random order, a last prompt token first: (length,)."""
        start, last = int(layout.starts[span.sample]), int(layout.last_rows[span.sample])
        if self.training:
            order = torch.randperm(span.length).numpy()
        else:
            shape = (last - start, span.start - start, span.length)
            order = np.random.default_rng([self.config.seed, index, *shape]).permutation(span.length)
        return order[np.argsort(order != last - span.start, kind="stable")]
