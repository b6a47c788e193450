"""What a batch of routes led to, and what the objectives that learn from it share.

Shapes: B samples, S DPE layers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from dpn.config import DpnConfig

WINDOW = 1024
CLIP_QUANTILE = 0.99
ENOUGH = 8
"""Samples of all ranks in a micro batch whose own mean and deviation are good enough."""


class Consequences(NamedTuple):
    """What a batch of routes led to, for an objective and its running state.

    Float32, without gradient.
    """

    answer_loss: Tensor
    """(B,) mean cross-entropy over a sample's supervised tokens."""
    stage_cost: Tensor
    """(S + 1, B) what every stage cost, as a share of the dense visual FLOPs (Eq. 8)."""
    is_routed: Tensor
    """(B,) bool: some DPE chose for this sample and it has an answer."""
    advantage_moments: Tensor | None = None
    """(3, R) of `moments` over all ranks, which the policy adds once it has judged the batch."""

    @property
    def cost(self) -> Tensor:
        """(B,) cost of the whole route."""
        return self.stage_cost.sum(0)

    def cost_behind(self) -> Tensor:
        """(S, B) cost of all stages behind every DPE: what its choice can still change."""
        return self.stage_cost[1:].flip(0).cumsum(0).flip(0)


class Objective(nn.Module):
    """Running state of an objective that learns from consequences.

    Its kinds' `forward` only reads the state, `observe` moves it.
    """

    loss_window: Tensor
    num_observed: Tensor
    num_updates: Tensor
    """Micro batches seen; there only where something depends on them."""

    def __init__(self, config: DpnConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("loss_window", torch.zeros(WINDOW, dtype=torch.float32))
        self.register_buffer("num_observed", torch.zeros((), dtype=torch.int64))
        if self.counts_updates:
            self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @property
    def counts_updates(self) -> bool:
        """Whether exploration ends or costs warm up."""
        return bool(self.config.exploration_steps or self.config.cost_warmup_steps)

    def exploration(self) -> Tensor:
        """Give the factor from 1 to 0 that exploration has fallen to: a scalar on the device."""
        if not self.config.exploration_steps:
            return torch.ones_like(self.num_observed, dtype=torch.float32)
        return (1 - self.num_updates.float() / self.config.exploration_steps).clamp(min=0)

    @torch.no_grad()
    def observe(self, seen: Consequences) -> None:
        """Remember the answer losses. Once per training micro step.

        Every rank makes the same collective calls, whatever its batch holds. The loss window is each rank's
        own.
        """
        self.loss_window = self.loss_window.float()  # engines that train in bfloat16 cast buffers, too
        size = len(seen.answer_loss)
        slots = (self.num_observed + torch.arange(size, device=self.num_observed.device)) % WINDOW
        self.loss_window[slots] = seen.answer_loss.float()
        self.num_observed.add_(size)
        if self.counts_updates:
            self.num_updates.add_(1)

    def clipped(self, answer_loss: Tensor) -> Tensor:
        """Clip (B,) losses at the 99th percentile of the window, once it is full.

        One long tail must not rule what is learned.
        """
        limit = torch.quantile(self.loss_window.float(), CLIP_QUANTILE)
        return torch.where(self.num_observed >= WINDOW, answer_loss.clamp(max=limit), answer_loss)


def moments(values: Tensor, weight: Tensor) -> Tensor:
    """Sum over the weighted samples (B,) of all ranks: count, total and squares of (R, B) as (3, R)."""
    return global_sum(
        torch.stack([weight.expand_as(values), weight * values, weight * values.square()]).sum(-1)
    )


def normalised(advantage: Tensor, batch: Tensor, earlier: Tensor) -> Tensor:
    """Shift every row of (R, B) to mean 0, and scale all rows to deviation 1.

    One deviation scales all rows, so that a row in which little is at stake stays small. Mean and deviation
    are the batch's own where it holds `ENOUGH` samples. Those of two samples would make every advantage 1 or
    -1, however small the difference is, so a smaller batch is measured together with earlier ones. A single
    sample without any before it has no deviation: its advantage stays as it is.

    Args:
        advantage: of every sample.
        batch: its `moments` (3, R).
        earlier: those of earlier batches (3, R).
    """
    count, total, squares = torch.where(batch[0] >= ENOUGH, batch, batch + earlier).unbind()  # (R,) each
    mean = total / count.clamp(min=1)
    deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).mean().sqrt()
    scaled = (advantage - mean[:, None]) / (deviation + 1e-6)
    return torch.where(count[:, None] > 1, scaled, advantage)


def global_sum(values: Tensor) -> Tensor:
    """Sum a small tensor over all ranks; a single process returns it as it is."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(values)
    return values
