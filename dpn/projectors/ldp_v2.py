"""LDPv2: two pointwise layers, average pooling, and a depthwise convolution that tells tokens where they are.

Chu et al. 2024, *MobileVLM V2: Faster and Stronger Baseline for Vision Language Model* (arXiv 2402.03766),
the section on the lightweight downsample projector, in its three steps: feature transformation (two
pointwise convolutions with a GELU between), token reduction (average pooling), positional information
enhancement (a depthwise 3 x 3 convolution with a skip connection, the PEG of Chu et al. 2021, *Conditional
Positional Encodings for Vision Transformers*).

Chosen here: pointwise convolutions are linear layers, which they equal; the depthwise one has a bias.

Shapes: B crops, N features, F feature width, h x w token grid, T tokens, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from dpn.projectors.base import GridProjector, ScaledConfig, TowerShape
from dpn.projectors.layers import mlp, squares, to_map, to_tokens


@dataclass(frozen=True, kw_only=True)
class LdpV2Config(ScaledConfig):
    """How many features are averaged."""


class LdpV2(GridProjector):
    """Linear, GELU, Linear, average pooling, depthwise 3 x 3 convolution with a skip connection."""

    config_class = LdpV2Config

    def __init__(self, config: LdpV2Config, tower: TowerShape, width: int) -> None:
        super().__init__(config, tower, width)
        self.mlp = mlp(tower.width, width)
        self.position = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Project [(B, N, F)] to (B, T, D)."""
        pooled = squares(self.mlp(features[0]), self.tower.grid, self.config.scale).mean(2)  # (B, T, D)
        placed = self.position(to_map(pooled, self.token_grid))  # (B, D, h, w)
        return pooled + to_tokens(placed)
