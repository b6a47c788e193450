"""Average pooling in front of LLaVA's MLP: the plainest projector with fewer tokens.

"Average-Pooling" of the DPN paper's Table 2, which doesn't describe it. Yao et al. 2024, *DeCo: Decoupling
Token Compression from Semantic Abstraction in Multimodal Large Language Models*, is this projector.

Chosen here: features are pooled before the MLP, as in DeCo, not its tokens after it. Both leave the first
layer what it is, since a mean passes through a linear map; behind the GELU they differ. Pooling first spares
three quarters of the MLP's work and memory, and the MLP can learn what a mean of four features needs.

Shapes: B crops, N features, F feature width, T tokens, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dpn.projectors.base import GridProjector, ScaledConfig, TowerShape
from dpn.projectors.layers import mlp, squares


@dataclass(frozen=True, kw_only=True)
class AveragePoolConfig(ScaledConfig):
    """How many features are averaged."""


class AveragePool(GridProjector):
    """The mean of every square of features, then Linear, GELU, Linear."""

    config_class = AveragePoolConfig

    def __init__(self, config: AveragePoolConfig, tower: TowerShape, width: int) -> None:
        super().__init__(config, tower, width)
        self.mlp = mlp(tower.width, width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Project [(B, N, F)] to (B, T, D)."""
        pooled = squares(features[0], self.tower.grid, self.config.scale).mean(2)  # (B, T, F)
        return self.mlp(pooled)
