"""Resampler: learned queries attend to all features, as many as there shall be tokens.

Bai et al. 2023, *Qwen-VL: A Versatile Vision-Language Model for Understanding, Localization, Text Reading,
and Beyond* (arXiv 2308.12966), section 2.1: one layer of cross-attention with trainable queries; 2-D
absolute position encodings go into the query-key pairs. Its idea is the Perceiver resampler of Alayrac et
al. 2022, *Flamingo*. The DPN paper's Table 2 cites Qwen-VL for it.

Chosen here: positions are added to the keys alone, because a learned query can learn its own, so any number
of queries will do; the attention is as wide as the decoder, as in Qwen-VL; layer norms in front of and
behind it, and a linear layer at the end.

Its tokens have no place in the image: they form no grid, so nothing can pool them by one.

Shapes: B crops, N features, F feature width, T tokens (queries), D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization

from dpn.experts import Grid
from dpn.projectors.base import ProjectorConfig, TowerShape, VisualProjector
from dpn.projectors.layers import CrossAttention, sincos_positions

QUERY_STD = 0.02
"""Of the learned queries' first values."""


@dataclass(frozen=True, kw_only=True)
class ResamplerConfig(ProjectorConfig):
    """How many tokens there are."""

    num_queries: int = 144
    """T, whatever the size of the features' grid."""

    def __post_init__(self) -> None:
        if self.num_queries < 1:
            raise ValueError(f"num_queries must be 1 or more, got {self.num_queries}")

    def grid(self, in_grid: Grid) -> None:
        """Give None: the queries have no place in the image."""

    def num_tokens(self, in_grid: Grid) -> int:
        """Count the queries; ValueError where there would be more than features."""
        rows, columns = in_grid
        if self.num_queries > rows * columns:
            raise ValueError(
                f"num_queries={self.num_queries} is more than the vision tower's {rows}x{columns} features, "
                f"so nothing would shrink; choose at most {rows * columns}"
            )
        return self.num_queries


class Resampler(VisualProjector):
    """Learned queries, one cross-attention over all features with their positions, norm, Linear."""

    config_class = ResamplerConfig

    def __init__(self, config: ResamplerConfig, tower: TowerShape, width: int) -> None:
        super().__init__(config, tower, width)
        self.queries = nn.Parameter(torch.empty(config.num_queries, width))
        nn.init.normal_(self.queries, std=QUERY_STD)  # for a projector built by itself; loading starts anew
        self.features = nn.Linear(tower.width, width, bias=False)
        self.query_norm, self.feature_norm, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.attention = CrossAttention(width)
        self.out = nn.Linear(width, width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Project [(B, N, F)] to (B, T, D)."""
        values = self.feature_norm(self.features(features[0]))  # (B, N, D)
        keys = values + sincos_positions(self.tower.grid, self.width, values.device).to(values.dtype)
        queries = self.query_norm(self.queries).expand(len(values), -1, -1)  # (B, T, D)
        return self.out(self.norm(self.attention(queries, keys, values)))

    def init_weights(self, module: nn.Module) -> None:
        """Draw the queries."""
        if module is self:
            initialization.normal_(self.queries, std=QUERY_STD)
