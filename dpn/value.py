"""`objective=value`: the router predicts what every expert does to the answer loss (docs/method.md).

Router s gives Q_s(e), the loss increase of expert e over the first expert (the identity one), so that Q_s of
that one is 0. A linear head on the first router's hidden layer predicts the loss v_b without any pooling.
Both are regressed on routes drawn while training:

    L = mean_b (v_b + sum_s Q_s(choice_s) - l_b)^2 / 2

A DPE prefers experts by -(Q_s(e) + mu c_s(e)) / temperature: drawn from their softmax while training, the
best one at inference. c_s(e) is what the stage behind the DPE costs with e, as a share of the dense visual
FLOPs (Eq. 8); the costs of a route's stages sum to its cost. mu changes no weight's meaning, so that one
checkpoint serves many budgets.

Shapes: B samples, S DPE layers, E experts, F features of the router's hidden layer.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dpn.config import DpnConfig
from dpn.consequences import Consequences, Objective
from dpn.experts import to_device
from dpn.flops import cost_shares
from dpn.router import Float32Linear
from dpn.routing import UNROUTED, Routing


class ValueObjective(Objective):
    """Head for the loss without pooling, and the regression of all predictions."""

    def __init__(self, config: DpnConfig, features: int) -> None:
        super().__init__(config)
        self.value = Float32Linear(features, 1)

    def forward(self, routing: Routing, seen: Consequences) -> Tensor:
        """Give the scalar L above for the routes in `routing`.

        Zero, but in the graph, where nothing was routed.
        """
        predicted = self.value(routing.router_hidden[0]).squeeze(-1)  # (B,)
        for outputs, choice in zip(routing.outputs, routing.choices, strict=True):
            expert = to_device(np.maximum(choice, 0), outputs.device)
            increase = loss_increase(outputs).gather(1, expert[:, None]).squeeze(1)  # (B,)
            predicted = predicted + increase * to_device(choice != UNROUTED, outputs.device)
        weight = seen.is_routed.float()
        error = predicted - self.clipped(seen.answer_loss)
        return (weight * error.square()).sum() / (2 * weight.sum().clamp(min=1))

    def cost_weight(self) -> Tensor:
        """Give mu, which is not learned here."""
        return torch.tensor(self.config.mu)


@dataclass(frozen=True, kw_only=True)
class StageCosts:
    """What a stage of the decoder costs, by the visual tokens that enter it."""

    layers: tuple[int, ...]
    """Decoder layers with a DPE in front of them."""
    num_layers: int
    hidden_size: int
    intermediate_size: int

    def of_experts(self, index: int, left: np.ndarray, before: np.ndarray) -> np.ndarray:
        """Give the cost of the stage behind DPE `index` for every expert: float32 (B, E).

        Args:
            index: which DPE, from 0.
            left: (B, E) visual tokens that every expert would leave.
            before: (B,) visual tokens before any pooling.
        """
        end = (*self.layers, self.num_layers)[index + 1]
        share = (end - self.layers[index]) / self.num_layers
        counts = np.concatenate([before[:, None], left], axis=1)  # (B, 1 + E)
        shares = cost_shares(counts, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size)
        return (share * shares[:, 1:]).astype(np.float32)


def loss_increase(outputs: Tensor) -> Tensor:
    """Read the router's outputs (B, E) as Q: differences to the first expert."""
    return outputs - outputs[:, :1]
