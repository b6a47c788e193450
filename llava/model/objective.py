"""What trains the routers: the routing loss of Eq.

6 and, for `objective=policy`, the consequences of the routes.

Shapes: B samples, S DPE layers.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from llava.model.config import LlavaConfig
from llava.model.language_loss import AnswerLoss
from llava.model.reduction import (
    Consequences,
    DynamicPyramid,
    Routing,
    loss_of_routing,
    per_layer,
    visual_cost,
)
from llava.model.report import routing_metrics


class RoutingObjective(NamedTuple):
    """Everything beside the language loss."""

    loss: Tensor
    """Scalar: lambda L_r (Eq. 7) plus the policy's term."""
    metrics: dict[str, Tensor]
    """Detached scalars for the log."""
    consequences: Consequences | None
    """What the policy's running state is to learn from, in training only."""


def routing_objective(
    routing: Routing, answer: AnswerLoss, reducer: DynamicPyramid, config: LlavaConfig
) -> RoutingObjective:
    """Judge the routes of a batch; every term is a mean over the samples that were routed.

    Args:
        routing: decisions of the batch.
        answer: language loss per sample.
        reducer: holds the configuration and the policy's state.
        config: sizes for the cost.
    """
    tokens = per_layer(routing.visual_counts, routing.layers, config.num_hidden_layers)  # (B, layers)
    cost = visual_cost(tokens, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size)
    hinge = loss_of_routing(routing, reducer.config)
    loss = reducer.config.loss_weight * hinge
    metrics = {"routing_loss": hinge.detach(), **routing_metrics(routing, reducer.config, cost)}
    if reducer.policy is None or not reducer.training:
        return RoutingObjective(loss, metrics, None)
    routed = routing.is_routed.any(0) & (answer.counts > 0)  # (B,)
    seen = Consequences(
        answer.per_sample,
        torch.from_numpy(cost).to(hinge.device, torch.float32),
        torch.from_numpy(routed).to(hinge.device),
    )
    policy = reducer.policy(routing, seen)
    metrics |= {"policy_loss": policy.detach(), "mu": reducer.policy.mu.clone()}
    return RoutingObjective(loss + policy, metrics, seen)
