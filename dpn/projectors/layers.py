"""The pieces that several projectors are made of.

Shapes: B crops, H x W grid, N = H * W, C channels, s scale, P = (H / s) * (W / s) squares, Q queries, K
keys.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dpn.experts import Grid

HEAD_WIDTH = 128
"""Channels of an attention head, as in the decoders and the published resamplers; narrow models have one."""


def mlp(in_width: int, width: int) -> nn.Sequential:
    """Build LLaVA-1.5's projector, Linear, GELU, Linear: (..., in_width) to (..., width)."""
    return nn.Sequential(nn.Linear(in_width, width), nn.GELU(), nn.Linear(width, width))


def squares(tokens: Tensor, grid: Grid, scale: int) -> Tensor:
    """Gather row-major tokens (B, N, C) by squares of scale x scale: (B, P, s * s, C), both row by row.

    >>> squares(torch.arange(8).reshape(1, 8, 1), (2, 4), 2).flatten().tolist()
    [0, 1, 4, 5, 2, 3, 6, 7]
    """
    rows, columns = grid
    cells = tokens.unflatten(1, (rows // scale, scale, columns // scale, scale))  # (B, H/s, s, W/s, s, C)
    return cells.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, P, s * s, C)


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Lay row-major tokens (B, N, C) out as a map for convolutions, (B, C, H, W)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def to_tokens(feature_map: Tensor) -> Tensor:
    """Read a map (B, C, H, W) row by row: (B, N, C)."""
    return feature_map.flatten(2).transpose(1, 2)


def sincos_positions(grid: Grid, width: int, device: torch.device) -> Tensor:
    """Encode every cell's row and column by sines and cosines: float32 (N, C), row by row.

    A quarter of the channels each for sine and cosine of the row and of the column, with wavelengths from
    2 pi to 20000 pi (Vaswani et al. 2017, section 3.5, for each of the two axes).

    Raises:
        ValueError: C isn't divisible by 4.
    """
    if width % 4:
        raise ValueError(f"2-D position embeddings need a width divisible by 4, got {width}")
    exponents = torch.arange(width // 4, device=device, dtype=torch.float32) / (width // 4)
    frequencies = 10000.0**-exponents  # (C/4,)
    axes = [torch.arange(size, device=device)[:, None] * frequencies for size in grid]  # (H, C/4), (W, C/4)
    row, column = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in axes)  # (H, C/2), (W, C/2)
    rows = row[:, None].expand(-1, grid[1], -1)  # (H, W, C/2)
    columns = column[None].expand(grid[0], -1, -1)  # (H, W, C/2)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)  # (N, C)


class CrossAttention(nn.Module):
    """Multi-head attention of queries to keys and values of the same width."""

    def __init__(self, width: int) -> None:
        """Take C; there are as many heads of about `HEAD_WIDTH` channels as fit.

        Raises:
            ValueError: C can't be shared out among the heads.
        """
        super().__init__()
        self.num_heads = max(1, width // HEAD_WIDTH)
        if width % self.num_heads:
            raise ValueError(f"a width of {width} can't be shared out among {self.num_heads} attention heads")
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend with (B, ..., Q, C) to keys and values (B, ..., K, C): (B, ..., Q, C)."""
        query = self._heads(self.query(queries))  # (B, ..., heads, Q, C/heads)
        key, value = self._heads(self.key(keys)), self._heads(self.value(values))
        # What lies between batch and rows counts as heads: kernels take four dimensions, and few batches.
        seen = functional.scaled_dot_product_attention(
            query.flatten(1, -3), key.flatten(1, -3), value.flatten(1, -3)
        )  # (B, ... * heads, Q, C/heads)
        return self.out(seen.view_as(query).transpose(-3, -2).flatten(-2))  # (B, ..., Q, C)

    def _heads(self, states: Tensor) -> Tensor:
        """Split (..., K, C) among the heads: (..., heads, K, C/heads)."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)
