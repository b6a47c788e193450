"""`objective=policy`: the router is trained by the consequences of the routes it sampled (docs/method.md).

Per sample b: answer loss l_b, cost c_b (share of the dense visual FLOPs, Eq. 8), reward R_b = -(l_b + mu
c_b), value v_b predicted from the first router's hidden layer, advantage A_b = R_b - v_b normalised over the
global batch; L = -mean_b A_b sum_s log p(choice) + mean_b (v_b - R_b)^2 / 2 - entropy_weight * mean entropy.

Shapes: B samples, S DPE layers, E experts, F features of the router's hidden layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn

from dpn.config import DpnConfig
from dpn.experts import to_device
from dpn.router import Float32Linear
from dpn.routing import Routing

WINDOW = 1024
CLIP_QUANTILE = 0.99


class Consequences(NamedTuple):
    """What a batch of routes led to, for the objective's running state.

    All (B,), float32, without gradient.
    """

    answer_loss: Tensor
    cost: Tensor
    is_routed: Tensor
    """bool: some DPE chose for this sample and it has an answer."""


class PolicyObjective(nn.Module):
    """Value head and running state of the policy; `forward` only reads the state, `observe` moves it."""

    mu: Tensor
    loss_window: Tensor
    num_observed: Tensor

    def __init__(self, config: DpnConfig, features: int) -> None:
        super().__init__()
        self.config = config
        self.value = Float32Linear(features, 1)
        self.register_buffer("mu", torch.tensor(config.mu, dtype=torch.float32))
        self.register_buffer("loss_window", torch.zeros(WINDOW, dtype=torch.float32))
        self.register_buffer("num_observed", torch.zeros((), dtype=torch.int64))

    def forward(self, routing: Routing, seen: Consequences) -> Tensor:
        """Give the scalar L above for the routes in `routing`.

        Zero, but in the graph, where nothing was routed.
        """
        assert routing.router_hidden is not None
        value = self.value(routing.router_hidden).squeeze(-1)  # (B,)
        reward = -(self._clipped(seen.answer_loss) + self.mu.float() * seen.cost)
        weight = seen.is_routed.float()
        count = weight.sum().clamp(min=1)
        advantage = normalised(reward - value.detach(), weight)
        probabilities = routing.probabilities
        routed = to_device(routing.is_routed, weight.device) * weight  # (S, B)
        entropy = -(probabilities * probabilities.clamp(min=1e-9).log()).sum(-1)  # (S, B)
        policy = -(weight * advantage * routing.chosen_log_probabilities()).sum() / count
        regression = (weight * (value - reward).square()).sum() / (2 * count)
        bonus = self.config.entropy_weight * (entropy * routed).sum() / routed.sum().clamp(min=1)
        return policy + regression - bonus

    @torch.no_grad()
    def observe(self, seen: Consequences) -> None:
        """Move mu by a dual step towards the budget and remember the answer losses.

        Once per training micro step.

        Every rank makes the same collective calls, whatever its batch holds. The loss window is each rank's
        own.
        """
        # Engines that train in bfloat16 cast buffers, too; there mu would be too coarse to move.
        self.mu, self.loss_window = self.mu.float(), self.loss_window.float()
        weight = seen.is_routed.float()
        if self.config.budget > 0:
            total = global_sum(torch.stack([(weight * seen.cost).sum(), weight.sum()]))
            mean_cost = total[0] / total[1].clamp(min=1)
            step = self.config.mu_step * (mean_cost - self.config.budget) * (total[1] > 0)
            self.mu.add_(step).clamp_(min=0)
        size = len(seen.answer_loss)
        slots = (self.num_observed + torch.arange(size, device=self.mu.device)) % WINDOW
        self.loss_window[slots] = seen.answer_loss.float()
        self.num_observed.add_(size)

    def _clipped(self, answer_loss: Tensor) -> Tensor:
        """Clip (B,) losses at the 99th percentile of the window, once it is full.

        One long tail must not rule the advantages.
        """
        limit = torch.quantile(self.loss_window.float(), CLIP_QUANTILE)
        return torch.where(self.num_observed >= WINDOW, answer_loss.clamp(max=limit), answer_loss)


def normalised(advantage: Tensor, weight: Tensor) -> Tensor:
    """Shift and scale (B,) to mean 0 and deviation 1 over the weighted samples of all ranks.

    A single sample has no deviation: its advantage stays as it is.
    """
    sums = global_sum(
        torch.stack([weight.sum(), (weight * advantage).sum(), (weight * advantage.square()).sum()])
    )
    count, total, squares = sums.unbind()
    mean = total / count.clamp(min=1)
    deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
    return torch.where(count > 1, (advantage - mean) / (deviation + 1e-6), advantage)


def global_sum(values: Tensor) -> Tensor:
    """Sum a small tensor over all ranks; a single process returns it as it is."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(values)
    return values
