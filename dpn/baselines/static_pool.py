"""Static pooling: the same kernel for every sample, at fixed layers. DPN without its routers.

It is the paper's own control (Table 3: static 2x1, 1x2 and 2x2), and equals DPN forced to one route with
`gate=none` (tests/dpn/baselines/test_static_pool.py).

Shapes: B samples, N packed rows before and M after, D model width.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from dpn.experts import GridPool, pool_rows, to_device
from dpn.layout import Layout
from dpn.method import (
    POSITION_MODES,
    FixedRateConfig,
    Kernel,
    check_choice,
    check_one_per_layer,
    check_places,
)
from dpn.reducer import Boundary, TokenReducer
from dpn.routing import UNROUTED, Routing

IDENTITY = GridPool((1, 1))


@dataclass(frozen=True, kw_only=True)
class StaticPoolConfig(FixedRateConfig):
    """Where visual tokens are pooled, and by what."""

    method: ClassVar[str] = "static"

    layers: tuple[int, ...] = (8, 16, 24)
    """Decoder layers in front of which tokens are pooled, counted from 0."""
    kernels: tuple[Kernel, ...] = ((2, 2), (2, 2), (2, 2))
    """Rows x columns of the windows, one kernel per layer; (1, 1) keeps every token."""
    pooling: str = "max"
    """How the tokens of a window become one: max or avg."""
    edge: str = "ceil"
    """Where a kernel doesn't divide the grid: ceil keeps a smaller last window, floor drops it."""
    position_mode: str = "renumber"
    """Positions after pooling: renumber or keep (that of the window's first token)."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_places(self.layers)
        check_one_per_layer("kernels", self.kernels, self.layers)
        if min(min(kernel) for kernel in self.kernels) < 1:
            raise ValueError(f"kernels have at least one row and one column, got {self.kernels}")
        check_choice("pooling", self.pooling, ("max", "avg"))
        check_choice("edge", self.edge, ("ceil", "floor"))
        check_choice("position_mode", self.position_mode, POSITION_MODES)

    @property
    def places(self) -> tuple[int, ...]:
        """The layers."""
        return self.layers

    @property
    def shares(self) -> tuple[float, ...]:
        """One token per window."""
        return tuple(1 / math.prod(kernel) for kernel in self.kernels)

    @property
    def windows(self) -> tuple[Kernel, ...]:
        """The kernels."""
        return self.kernels


class StaticPool(TokenReducer[StaticPoolConfig]):
    """Pools every image by the kernel of its place."""

    def new_routing(self, layout: Layout, shift: Tensor | None = None) -> Routing:
        """Start a record whose route names are the kernels."""
        routing = super().new_routing(layout, shift)
        routing.kernels = self.config.kernels
        return routing

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Pool (N, D) to (M, D); samples of which nothing would be left, or that have no grid, stay."""
        layout.require_grids(self.config.method)
        expert = GridPool(self.config.kernels[index], self.config.edge)
        is_pooled = layout.has_grid() & ~layout.loses_image(expert)  # (B,)
        routing.choices.append(np.where(is_pooled, index, UNROUTED))
        if expert.kernel == (1, 1) or not is_pooled.any():
            return hidden, layout
        source, pooled = layout.pool([expert if pools else IDENTITY for pools in is_pooled])
        return pool_rows(hidden, to_device(source, hidden.device), self.config.pooling), pooled
