"""What was decided and counted in one forward pass, kept apart from how it is decided.

A method without routers fills the counts only; one that pools without choosing also names its kernels.

Shapes: B samples, S DPE layers, E experts, D model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dpn.layout import Layout

UNROUTED = -1
"""Choice of a sample that a DPE left alone: no visual tokens, too few, or none that form a grid."""


@dataclass
class Routing:
    """Decisions of all DPEs for one batch, filled stage by stage."""

    kernels: tuple[tuple[int, int], ...]
    """What `choices` index; () for methods that don't pool."""
    layers: tuple[int, ...]
    """Decoder layers in front of which tokens are reduced."""
    logits: list[Tensor] = field(default_factory=list)
    """Per DPE (B, E) float32, bias and temperature applied."""
    shift: Tensor | None = None
    """(B,) float32: what moves every sample's choices towards cheaper experts (dpn/budget.py)."""
    directions: list[np.ndarray] = field(default_factory=list)
    """Per DPE (E,) or (B, E): what a shift of 1 adds to `temperature * logits` where an expert is chosen."""
    choices: list[np.ndarray] = field(default_factory=list)
    """Per DPE (B,) expert index on the host, or UNROUTED."""
    log_chosen: list[Tensor] = field(default_factory=list)
    """Per DPE (B,) in training: log of the probability that the choice was drawn with, 0 where there was
    none."""
    outputs: list[Tensor] = field(default_factory=list)
    """Per DPE (B, E) what the router gave, before anything was made of it."""
    router_hidden: list[Tensor] = field(default_factory=list)
    """Per DPE (B, F) hidden layer of the router, which value heads read."""
    advantage_moments: Tensor | None = None
    """What the policy measured of its advantages (dpn/consequences.py `moments`)."""
    token_counts: list[np.ndarray] = field(default_factory=list)
    """Per stage (B,) tokens of every sample; the first entry is before any pooling."""
    visual_counts: list[np.ndarray] = field(default_factory=list)
    """Per stage (B,) visual tokens among them."""

    def count(self, layout: Layout) -> None:
        """Note the tokens of a stage that begins."""
        self.token_counts.append(np.array(layout.lengths))
        self.visual_counts.append(layout.visual_counts())

    @property
    def has_routers(self) -> bool:
        """Whether routers gave probabilities for what was chosen."""
        return bool(self.logits)

    @property
    def probabilities(self) -> Tensor:
        """Give softmax(logits) of all DPEs: (S, B, E)."""
        return torch.stack(self.logits).softmax(-1)

    @property
    def entropies(self) -> Tensor:
        """Give the entropy of every DPE's probabilities in nats: (S, B); ln E is no preference."""
        probabilities = self.probabilities
        return -(probabilities * probabilities.clamp(min=1e-9).log()).sum(-1)

    @property
    def is_routed(self) -> np.ndarray:
        """(S, B) bool: the DPE chose for this sample."""
        return np.stack(self.choices) != UNROUTED

    def route_names(self, sample: int) -> tuple[str, ...]:
        """Name the kernels that a sample took, one per DPE; "1x1" where it was left alone.

        () for methods that don't pool.
        """
        kernels = [
            (1, 1) if choice[sample] == UNROUTED else self.kernels[choice[sample]] for choice in self.choices
        ]
        return tuple(f"{rows}x{columns}" for rows, columns in kernels)


def per_layer(per_stage: Sequence[np.ndarray], layers: tuple[int, ...], num_layers: int) -> np.ndarray:
    """Spread counts per stage over the decoder's layers: S + 1 arrays (B,) to one int64 (B, num_layers).

    >>> per_layer([np.array([4]), np.array([2])], (1,), 3).tolist()
    [[4, 2, 2]]
    """
    sizes = np.diff([0, *layers, num_layers])
    return np.repeat(np.stack(per_stage, axis=1), sizes, axis=1)  # (B, num_layers)
