"""`objective=policy`: the router is trained by the consequences of the routes it sampled (docs/method.md).

Per sample b: answer loss l_b, cost c_b (share of the dense visual FLOPs, Eq. 8), reward R_b = -(l_b + mu
c_b), value v_b predicted from the first router's hidden layer, advantage A_b = R_b - v_b, normalised over the
micro batch of all ranks (a small one together with earlier ones); L = -mean_b A_b sum_s log p(choice) +
mean_b (v_b - R_b)^2 / 2 - entropy_weight * mean entropy.
With credit=later every DPE s has a reward of its own, in which only the cost of the stages behind it counts,
and a value of its own, read from its own router.

Shapes: B samples, S DPE layers, E experts, F features of the router's hidden layer.
"""

import torch
from torch import Tensor

from dpn.config import DpnConfig
from dpn.consequences import Consequences, Objective, global_sum, moments, normalised
from dpn.experts import to_device
from dpn.router import Float32Linear
from dpn.routing import Routing

HORIZON = 256
"""Samples after which what was measured of advantages has faded to 1/e."""


class PolicyObjective(Objective):
    """Value head, cost weight and running state of the policy."""

    mu: Tensor
    advantage_moments: Tensor
    """(3, R) fading sums of `moments`, R = 1, or S for credit=later."""

    def __init__(self, config: DpnConfig, features: int) -> None:
        super().__init__(config)
        rows = len(config.layers) if config.credit == "later" else 1
        self.value = Float32Linear(features, rows)
        self.register_buffer("advantage_moments", torch.zeros(3, rows, dtype=torch.float32))
        self.register_buffer("mu", torch.tensor(config.mu, dtype=torch.float32))

    def forward(self, routing: Routing, seen: Consequences) -> Tensor:
        """Give the scalar L above for the routes in `routing`, and note there what `observe` is to learn.

        Zero, but in the graph, where nothing was routed.
        """
        value, cost = self._value(routing), self._cost(seen)  # (S or 1, B)
        reward = -(self.clipped(seen.answer_loss) + self.cost_weight() * cost)
        weight = seen.is_routed.float()
        count = weight.sum().clamp(min=1)
        advantage = reward - value.detach()  # (S or 1, B)
        routing.advantage_moments = moments(advantage, weight)
        advantage = normalised(advantage, routing.advantage_moments, self.advantage_moments.float())
        policy = -(weight * advantage * torch.stack(routing.log_chosen)).sum() / count
        regression = (weight * (value - reward).square()).mean(0).sum() / (2 * count)
        return policy + regression - self._entropy_bonus(routing, weight)

    def cost_weight(self) -> Tensor:
        """Give mu as it counts now, less while costs warm up: a scalar on the device."""
        return self.mu.float() * self._warmth()

    def _warmth(self) -> Tensor:
        if not self.config.cost_warmup_steps:
            return torch.ones_like(self.num_observed, dtype=torch.float32)
        return (self.num_updates.float() / self.config.cost_warmup_steps).clamp(max=1)

    @torch.no_grad()
    def observe(self, seen: Consequences) -> None:
        """Move mu by a dual step towards the budget, and the running state."""
        # Engines that train in bfloat16 cast buffers, too; there mu would be too coarse to move.
        self.mu = self.mu.float()
        if self.config.budget > 0:
            weight = seen.is_routed.float()
            total = global_sum(torch.stack([(weight * seen.cost).sum(), weight.sum()]))
            mean_cost = total[0] / total[1].clamp(min=1)
            is_due = (total[1] > 0) & (self._warmth() == 1)
            step = self.config.mu_step * (mean_cost - self.config.budget) * is_due
            self.mu.add_(step).clamp_(min=0)
        if seen.advantage_moments is not None:
            kept = torch.exp(-seen.advantage_moments[0] / HORIZON)  # (R,)
            self.advantage_moments = self.advantage_moments.float() * kept + seen.advantage_moments
        super().observe(seen)

    def _value(self, routing: Routing) -> Tensor:
        """Predict rewards: (1, B), or (S, B) for credit=later."""
        if self.config.credit == "route":
            return self.value(routing.router_hidden[0]).T
        every = self.value(torch.stack(routing.router_hidden))  # (S, B, S)
        return every.diagonal(dim1=0, dim2=2).T

    def _cost(self, seen: Consequences) -> Tensor:
        """Give the cost that a DPE answers for: (1, B), or (S, B) for credit=later."""
        return seen.cost[None] if self.config.credit == "route" else seen.cost_behind()

    def _entropy_bonus(self, routing: Routing, weight: Tensor) -> Tensor:
        """Weigh the mean entropy over the samples (B,) that every DPE routed."""
        if not self.config.entropy_weight:
            return weight.new_zeros(())
        probabilities = routing.probabilities  # (S, B, E)
        entropy = -(probabilities * probabilities.clamp(min=1e-9).log()).sum(-1)  # (S, B)
        routed = to_device(routing.is_routed, weight.device) * weight
        mean = (entropy * routed).sum() / routed.sum().clamp(min=1)
        return self.config.entropy_weight * self.exploration() * mean
