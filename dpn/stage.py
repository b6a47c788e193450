"""What all layers of a stage share: packing, rotary embeddings, and where their keys and values go.

Shapes: B samples, N packed rows, G key/value heads, P cells of a cache, C head width.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from dpn.attention import Packing


class StagePlan(NamedTuple):
    """Made once per stage."""

    packing: Packing
    rotary: tuple[Tensor, Tensor]
    """(1, N, C) twice: cosine and sine of the rows' positions."""
    real: np.ndarray
    """(B, P) bool: cells of the stage's caches that hold a token; empty without a cache."""
    cell_rows: Tensor | None
    """(B, P) row of every cell; None where cells are the rows in their order, which needs no copy."""

    def in_cells(self, states: Tensor) -> Tensor:
        """Lay packed states (1, G, N, C) out as a cache holds them: (B, G, P, C), on their own device."""
        rows = states[0].transpose(0, 1)  # (N, G, C), whose rows lie in one piece
        if self.cell_rows is None:
            return rows.unflatten(0, self.real.shape).transpose(1, 2)
        return rows[self.cell_rows.to(states.device)].transpose(1, 2)
