"""The routing loss of Eq. 6 and its released variant. Shapes: S DPE layers, B samples, E experts."""

import numpy as np
import torch
from torch import Tensor

from dpn.config import DpnConfig
from dpn.experts import to_device
from dpn.routing import Routing


def routing_loss(probabilities: Tensor, is_routed: Tensor, config: DpnConfig) -> Tensor:
    """Mean over DPEs of max(0, t - mean over routed samples of the rate): a scalar, unweighted.

    `hinge_scope="all"` takes one hinge of the mean over samples and DPEs (release).

    `hinge="expected"` takes the rate sum_i p_i C_i (Eq. 6), `"chosen"` p C of the most probable expert
    (release). A DPE without a routed sample contributes zero but keeps its router in the graph.

    Args:
        probabilities: (S, B, E).
        is_routed: (S, B) bool.
        config: rates, target and reading of the hinge.
    """
    rate = (expected_rates(probabilities, config) * is_routed).sum(1)  # (S,)
    count = is_routed.sum(1)
    if config.hinge_scope == "all":
        rate, count = rate.sum()[None], count.sum()[None]  # (1,)
    hinge = (config.target - rate / count.clamp(min=1)).clamp(min=0)
    return torch.where(count > 0, hinge, 0.0 * rate).mean()


def expected_rates(probabilities: Tensor, config: DpnConfig) -> Tensor:
    """Rate of every sample at every DPE in bits of compression: (S, B, E) -> (S, B)."""
    rates = to_device(np.array(config.rates, np.float32), probabilities.device)
    if config.hinge == "expected":
        return (probabilities * rates).sum(-1)
    highest, chosen = probabilities.max(-1)
    return highest * rates[chosen]


def loss_of_routing(routing: Routing, config: DpnConfig) -> Tensor:
    """Apply `routing_loss` to the record of a forward pass."""
    probabilities = routing.probabilities
    return routing_loss(probabilities, to_device(routing.is_routed, probabilities.device), config)
