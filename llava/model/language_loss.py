"""The language loss on supervised rows only: no logits are made where no token has to be predicted.

Shapes: B samples, T merged length, N rows, A supervised rows, V vocabulary, D model width.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPast

from llava.constants import IGNORE_INDEX
from llava.model.reduction import Layout, PyramidOutput


class Supervision(NamedTuple):
    """Which rows predict what. All (A,), on the host."""

    rows: np.ndarray
    targets: np.ndarray
    samples: np.ndarray


class AnswerLoss(NamedTuple):
    """Cross-entropy summed over supervised tokens, and its mean per sample."""

    total: Tensor
    """Scalar sum."""
    per_sample: Tensor
    """(B,) mean over a sample's supervised tokens, zero where it has none; without gradient."""
    counts: np.ndarray
    """(B,) supervised tokens of every sample, on the host."""


def supervise(labels: np.ndarray, layout: Layout | None) -> Supervision:
    """Find the rows whose next token is supervised.

    Args:
        labels: (B, T) before any pooling.
        layout: where the last stage's rows lie, or None for padded states, whose rows are the flattened (B *
            T).
    """
    if layout is None:
        own, samples = labels.reshape(-1), np.repeat(np.arange(len(labels)), labels.shape[1])
    else:
        own, samples = labels.reshape(-1)[layout.origin], layout.samples
    follows = (own[1:] != IGNORE_INDEX) & (samples[1:] == samples[:-1])
    rows = np.flatnonzero(follows)
    return Supervision(rows, own[rows + 1], samples[rows])


def callers_states(outputs: BaseModelOutputWithPast, keep: int) -> Tensor:
    """Give the states (B, T or keep, D) that predict the caller's tokens, `keep` of them or all (0).

    Where tokens were pooled away, the row that they went into speaks for them; where they were dropped, the
    last row in front of them that is left.
    """
    hidden = outputs.last_hidden_state
    assert hidden is not None
    if isinstance(outputs, PyramidOutput) and outputs.layout is not None:
        if keep == 1:
            rows = torch.from_numpy(outputs.layout.starts[1:] - 1).to(hidden.device)
            return hidden[0, rows][:, None]  # (B, 1, D)
        hidden = hidden[0, outputs.layout.caller_rows(hidden.device)]  # (B, T, D)
    return hidden[:, -keep:] if keep else hidden


def answer_loss(hidden: Tensor, head: nn.Module, supervision: Supervision, num_samples: int) -> AnswerLoss:
    """Cross-entropy of the supervised rows of hidden states (N, D), computed in float32.

    Without any supervised token the sum is zero and the head stays in the graph, so that ranks agree on it.
    """
    device = hidden.device
    rows = torch.from_numpy(supervision.rows).to(device)
    targets = torch.from_numpy(supervision.targets).to(device)
    samples = torch.from_numpy(supervision.samples).to(device)
    logits = head(hidden[rows] if len(rows) else hidden[:1]).float()  # (A, V)
    counts = np.bincount(supervision.samples, minlength=num_samples)
    if not len(rows):
        return AnswerLoss(0.0 * logits.sum(), logits.new_zeros(num_samples), counts)
    losses = functional.cross_entropy(logits, targets, reduction="none")  # (A,)
    sums = losses.detach().new_zeros(num_samples).index_add(0, samples, losses.detach())
    return AnswerLoss(losses.sum(), sums / torch.from_numpy(counts).to(sums).clamp(min=1), counts)
