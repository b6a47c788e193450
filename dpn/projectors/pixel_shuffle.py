"""Pixel shuffle: every square of features becomes one wide feature, and an MLP makes it a token.

Chen et al. 2024, *How Far Are We to GPT-4V? Closing the Gap to Commercial Multimodal Models with Open-Source
Suites* (InternVL 1.5), section 3: pixel shuffle (space to depth) leaves a quarter of the tokens, an MLP
follows.

Chosen here: the order inside a wide feature is row by row through the square, which the first linear layer
makes all one; the wide feature is normalised first, as the released InternVL models do; GELU, as LLaVA's
MLP.

Shapes: B crops, N features, F feature width, s scale, T tokens, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dpn.projectors.base import GridProjector, ScaledConfig, TowerShape
from dpn.projectors.layers import mlp, squares


@dataclass(frozen=True, kw_only=True)
class PixelShuffleConfig(ScaledConfig):
    """How many features are put side by side."""


class PixelShuffle(GridProjector):
    """Space to depth, layer norm, then Linear, GELU, Linear."""

    config_class = PixelShuffleConfig

    def __init__(self, config: PixelShuffleConfig, tower: TowerShape, width: int) -> None:
        super().__init__(config, tower, width)
        wide = config.scale**2 * tower.width
        self.norm = nn.LayerNorm(wide)
        self.mlp = mlp(wide, width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Project [(B, N, F)] to (B, T, D)."""
        return self.mlp(self.norm(self.shuffled(features[0])))

    def shuffled(self, features: Tensor) -> Tensor:
        """Put the features (B, N, F) of every square side by side: (B, T, s * s * F)."""
        return squares(features, self.tower.grid, self.config.scale).flatten(2)
