"""What the last prompt token of every sample attends to, without eager attention in any layer.

One softmax row per sample is made from queries and keys that a layer has anyway, so that the kernels of all
layers stay what they are. It equals the row that eager attention would give (tests/dpn/test_tap.py).

Shapes: B samples, N packed rows, P longest sample, H heads, G key/value heads, C head width.
"""

import numpy as np
import torch
from torch import Tensor

from dpn.experts import to_device
from dpn.layout import Layout


class AttentionTap:
    """Handed to one layer's attention function, which fills it."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.weights: Tensor | None = None
        """(N,) float32: mean over heads of what every sample's last prompt token attends to among its rows;
        zero behind it. None until the layer has run."""

    @torch.no_grad()
    def fill(self, query: Tensor, key: Tensor, scale: float) -> None:
        """Take a layer's queries (1, H, N, C) and keys (1, G, N, C), rotated, and the scale of its scores.

        Only the first time: gradient checkpointing runs the layer again, when its scores have been used. It
        counts what autograd saves, too, so nothing here may be recorded.
        """
        if self.weights is None:
            rows = to_device(self.layout.last_rows, query.device)
            queries = query[0, :, rows].transpose(0, 1)  # (B, H, C)
            self.weights = last_row_attention(queries, key[0].transpose(0, 1), self.layout, scale)


@torch.no_grad()
def last_row_attention(query: Tensor, key: Tensor, layout: Layout, scale: float) -> Tensor:
    """Give what every sample's last prompt token attends to: (N,) float32, mean over heads.

    Computed in float32, since half precision would tie many tokens. Causal: rows behind the last prompt
    token, which training has, get zero and take no part in the softmax.

    Args:
        query: (B, H, C) of the last prompt tokens, rotated.
        key: (N, G, C) of all rows, rotated.
        layout: of the rows.
        scale: factor of the scores.
    """
    rows, real = layout.padded_index()  # (B, P)
    seen = to_device(real & (rows <= layout.last_rows[:, None]), key.device)
    groups = key.shape[1]
    with torch.autocast(key.device.type, enabled=False):
        keys = key[to_device(rows, key.device)].float()  # (B, P, G, C)
        queries = query.float().unflatten(1, (groups, -1))  # (B, G, H/G, C)
        scores = torch.einsum("bgrc,bpgc->bgrp", queries, keys) * scale
        scores = scores.masked_fill(~seen[:, None, None], float("-inf"))
        weights = scores.softmax(-1).mean((1, 2))  # (B, P)
    return weights.flatten()[to_device(np.flatnonzero(real), key.device)]  # (N,)
