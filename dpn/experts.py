"""Pooling experts as index plans: which rows of a packed sequence each pooled row is made of.

Shapes: N packed rows, M rows after pooling, K largest window, H x W visual grid, h x w kernel, D model width.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Kernel = tuple[int, int]
Grid = tuple[int, int]


@dataclass(frozen=True)
class GridPool:
    """One pooling expert (Eq. 4): merges every h x w window of a visual grid.

    It has no parameters, so a rank may skip it.
    """

    kernel: Kernel
    edge: str = "ceil"
    """ceil keeps a smaller last window where the kernel doesn't divide the grid, floor drops the rest
    (release)."""

    def grid(self, grid: Grid) -> Grid:
        """Give the grid after pooling."""
        (height, width), (h, w) = grid, self.kernel
        if self.edge == "floor":
            return height // h, width // w
        return -(-height // h), -(-width // w)

    def windows(self, grid: Grid) -> np.ndarray:
        """List the tokens of every window of a row-major grid: int64 (windows, h*w), read-only.

        A window that sticks out of the grid repeats its last row or column, which changes no maximum and,
        in `pool_rows`, no average.

        >>> GridPool((2, 2)).windows((2, 4)).tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7]]
        """
        return _windows(self, grid)


@lru_cache(maxsize=512)
def _windows(expert: GridPool, grid: Grid) -> np.ndarray:
    (height, width), (h, w) = grid, expert.kernel
    rows, columns = expert.grid(grid)
    y = np.minimum(np.arange(rows)[:, None] * h + np.arange(h), height - 1)  # (rows, h)
    x = np.minimum(np.arange(columns)[:, None] * w + np.arange(w), width - 1)  # (columns, w)
    tokens = y[:, None, :, None] * width + x[None, :, None, :]  # (rows, columns, h, w)
    windows = tokens.reshape(rows * columns, h * w).astype(np.int64)
    windows.flags.writeable = False
    return windows


def pool_rows(hidden: Tensor, source: Tensor, pooling: str) -> Tensor:
    """Merge packed rows (N, D) by a plan `source` (M, K) to (M, D).

    A row that is kept repeats its own index K times, a smaller window at an edge some of its rows. Repeats
    change no maximum; an average counts every row once.
    """
    if pooling == "max":
        return hidden[source].amax(dim=1)
    source = source.sort(dim=1).values
    is_first = torch.ones_like(source, dtype=torch.bool)
    is_first[:, 1:] = source[:, 1:] != source[:, :-1]
    total = (hidden[source] * is_first[..., None]).sum(dim=1)  # (M, D)
    return total / is_first.sum(dim=1, keepdim=True)


def to_device(plan: np.ndarray, device: torch.device) -> Tensor:
    """Bring a host-side plan to the device in one copy that doesn't block the host."""
    tensor = torch.from_numpy(plan)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
