"""C-Abstractor: convolutions, average pooling, convolutions, an MLP.

Cha et al. 2024, *Honeybee: Locality-enhanced Projector for Multimodal LLM* (arXiv 2312.06742), the section
on the C-Abstractor: L ResNet blocks, adaptive average pooling to the wanted number of tokens, L ResNet
blocks (L = 3); the blocks are bottlenecks with squeeze-and-excitation.

Chosen here: the block is RegNet's (Radosavovic et al. 2020, *Designing Network Design Spaces*, the Y block:
1 x 1, 3 x 3, squeeze-and-excitation to a quarter, 1 x 1) at the features' width, with SiLU, a depthwise 3 x
3 convolution, and layer norm in place of batch norm, which would make an image's tokens depend on its batch;
no position embedding of its own, since CLIP's features have theirs and padded convolutions see the border;
LLaVA's MLP at the end. A scale divides the grid, so adaptive average pooling is average pooling.

Shapes: B crops, N features, F feature width, H x W feature grid, h x w token grid, T tokens, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional
from transformers.models.convnext.modeling_convnext import ConvNextLayerNorm
from transformers.models.regnet.modeling_regnet import RegNetSELayer

from dpn.projectors.base import GridProjector, ScaledConfig, TowerShape
from dpn.projectors.layers import mlp, to_map, to_tokens

SQUEEZE = 4
"""Squeeze-and-excitation has this many times fewer channels inside."""


@dataclass(frozen=True, kw_only=True)
class CAbstractorConfig(ScaledConfig):
    """How many features are averaged, and how much convolves around that."""

    depth: int = 3
    """L, the blocks in front of the pooling, and as many behind it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1:
            raise ValueError(f"depth must be 1 or more, got {self.depth}")


class Bottleneck(nn.Module):
    """RegNet's Y block with layer norm: (B, C, H, W) to the same shape."""

    def __init__(self, width: int) -> None:
        """Take C."""
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(width, kernel=1),
            nn.SiLU(),
            *_conv_norm(width, kernel=3, groups=width),
            nn.SiLU(),
            RegNetSELayer(width, max(1, width // SQUEEZE)),
            *_conv_norm(width, kernel=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Add what the convolutions find to (B, C, H, W)."""
        return functional.silu(features + self.residual(features))


class CAbstractor(GridProjector):
    """Bottlenecks, average pooling, bottlenecks, Linear, GELU, Linear."""

    config_class = CAbstractorConfig

    def __init__(self, config: CAbstractorConfig, tower: TowerShape, width: int) -> None:
        super().__init__(config, tower, width)
        self.before, self.after = (
            nn.Sequential(*(Bottleneck(tower.width) for _ in range(config.depth))) for _ in range(2)
        )
        self.mlp = mlp(tower.width, width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Project [(B, N, F)] to (B, T, D)."""
        fine = self.before(to_map(features[0], self.tower.grid))  # (B, F, H, W)
        pooled = functional.avg_pool2d(fine, self.config.scale)  # (B, F, h, w)
        return self.mlp(to_tokens(self.after(pooled)))


def _conv_norm(width: int, *, kernel: int, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    """Build a convolution (B, C, H, W) to the same shape, and the norm of its channels behind it."""
    convolution = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=groups, bias=False)
    return convolution, ConvNextLayerNorm(width, data_format="channels_first")
