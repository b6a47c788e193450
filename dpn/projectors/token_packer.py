"""TokenPacker: coarse queries gather the fine features of their own square, from several layers of the tower.

Li et al. 2024, *TokenPacker: Efficient Visual Projector for Multimodal LLM* (arXiv 2407.02392), the section
on the method: features are downsampled by bilinear interpolation to point queries; every query attends to
the scale x scale square of high-resolution features that it stands for (point to region), whose keys and
values are made by MLPs of the features of several CLIP layers side by side; what it gathers is added to it;
an MLP gives the tokens.

Chosen here: the residual adds to the downsampled feature itself; queries, keys and values are normalised in
front of the attention; 12, 16, 22 and 23 of CLIP-L's 24 layers are read, as the released models do, and the
same relative depths of any other tower.

Shapes: B crops, N features, F feature width, L levels, s scale, T tokens, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpn.projectors.base import GridProjector, ScaledConfig, TowerShape
from dpn.projectors.layers import CrossAttention, mlp, squares, to_map, to_tokens

LEVELS = (12, 16, 22, 23)
"""Hidden states of CLIP-L that the released models read ..."""
SELECTED = 23
"""... where LLaVA takes this one."""


@dataclass(frozen=True, kw_only=True)
class TokenPackerConfig(ScaledConfig):
    """How large squares are, and what is read of them."""

    layers: tuple[int, ...] = ()
    """Hidden states that are read in high resolution, counted as mm_vision_select_layer is; none given:
    12, 16, 22 and 23 where LLaVA takes 23, and the same shares of whatever it takes elsewhere."""

    def feature_layers(self, tower: TowerShape) -> tuple[int, ...]:
        """Name what the queries are made of, LLaVA's own hidden state, and then every level.

        Raises:
            ValueError: the tower has no such layer, or one is named twice.
        """
        count = tower.num_layers + 1
        if self.layers:
            outside = [layer for layer in self.layers if not -count <= layer < count]
            levels = [layer % count for layer in self.layers]
            if outside or len(set(levels)) != len(levels):
                raise ValueError(
                    f"layers={','.join(map(str, self.layers))} must name different hidden states of the "
                    f"vision tower, from {-count} to {count - 1}"
                )
        else:
            shares = [round(tower.layer * level / SELECTED) for level in LEVELS]
            levels = sorted(set(shares))  # of a shallow tower several are the same
        return (tower.layer, *levels)


class TokenPacker(GridProjector):
    """Downsampled queries, attention of each to its own square, residual, Linear, GELU, Linear."""

    config_class = TokenPackerConfig

    def __init__(self, config: TokenPackerConfig, tower: TowerShape, width: int) -> None:
        super().__init__(config, tower, width)
        levels = len(self.feature_layers) - 1
        self.query = nn.Linear(tower.width, tower.width)
        self.key = mlp(levels * tower.width, tower.width)
        self.value = mlp(levels * tower.width, tower.width)
        self.query_norm, self.key_norm, self.value_norm = (nn.LayerNorm(tower.width) for _ in range(3))
        self.attention = CrossAttention(tower.width)
        self.mlp = mlp(tower.width, width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Project [queries' features, level 1, .., level L], each (B, N, F), to (B, T, D)."""
        own, *levels = features
        grid, scale = self.tower.grid, self.config.scale
        coarse = functional.interpolate(to_map(own, grid), self.token_grid, mode="bilinear")  # (B, F, h, w)
        points = to_tokens(coarse)  # (B, T, F)
        fine = squares(torch.cat(levels, dim=-1), grid, scale)  # (B, T, s * s, L * F)
        queries = self.query_norm(self.query(points))[:, :, None]  # (B, T, 1, F)
        keys, values = self.key_norm(self.key(fine)), self.value_norm(self.value(fine))  # (B, T, s * s, F)
        gathered = self.attention(queries, keys, values).squeeze(2)  # (B, T, F)
        return self.mlp(points + gathered)
