"""The loss of a batch: language loss, routing loss (Eq. 6 and 7), and the policy's or value's term.

Shapes: B samples, T merged length, V vocabulary.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.modeling_outputs import BaseModelOutputWithPast

from llava.model.language_loss import AnswerLoss, answer_loss, supervise
from llava.model.reduction import (
    Consequences,
    DynamicPyramid,
    PyramidLlamaModel,
    PyramidOutput,
    Routing,
    loss_of_routing,
    stage_cost,
)


class BatchLoss(NamedTuple):
    """What a batch with labels gives."""

    loss: Tensor
    """Scalar to be trained on."""
    metrics: dict[str, Tensor]
    """Detached scalars for the log."""
    consequences: Consequences | None
    """What the policy's running state is to learn from, in training only."""


class RoutingObjective(NamedTuple):
    """Everything beside the language loss."""

    loss: Tensor
    """Scalar: lambda L_r (Eq. 7) plus the policy's term."""
    metrics: dict[str, Tensor]
    """Detached scalars for the log."""
    consequences: Consequences | None
    """What the policy's running state is to learn from, in training only."""


def batch_loss(
    outputs: BaseModelOutputWithPast,
    truth: np.ndarray,
    head: nn.Module,
    decoder: PyramidLlamaModel,
    num_items: Tensor | int | None,
    routed_samples: Tensor | None = None,
) -> BatchLoss:
    """Judge a decoder's output by the labels (B, T): Eq. 7 and, in training, the policy's term.

    Trainer expects the loss to be divided by `num_items` already. The auxiliary terms are means over the
    routed samples of the batch and get the batch's share of the step's, so that a step's samples weigh alike
    however they are split into micro batches and ranks. (A hinge of the mean over all of them is never above
    the mean of the micro batches' hinges; the two agree while every micro batch is below the target.)

    Args:
        outputs: packed states with their layout, or padded ones.
        truth: labels on the host, -100 where nothing is supervised.
        head: hidden states to logits (V).
        decoder: holds the reducer and the sizes.
        num_items: supervised tokens of the whole step; None divides by the batch's own.
        routed_samples: (2,) samples with images in this batch and in the whole step; None takes the batch's
            share of `num_items` for the auxiliary terms, too.
    """
    is_reduced = isinstance(outputs, PyramidOutput)
    assert outputs.last_hidden_state is not None
    supervision = supervise(truth, outputs.layout if is_reduced else None)
    answer = answer_loss(outputs.last_hidden_state.flatten(0, 1), head, supervision, len(truth))
    local = int(answer.counts.sum())
    if local == 0 and not decoder.training:
        return BatchLoss(
            answer.total * float("nan"), {}, None
        )  # the mean over no token, as upstream gives it
    # A batch whose answers were all cut off weighs nothing, also where it is the whole step.
    share = 1.0 if num_items is None else local / num_items if local else 0.0
    loss = answer.total / max(local, 1) * share
    metrics = {"language_loss": answer.total.detach() / max(local, 1)}
    if not is_reduced or outputs.routing is None or decoder.reducer is None:
        return BatchLoss(loss, metrics, None)
    if not isinstance(decoder.reducer, DynamicPyramid):
        return BatchLoss(loss, metrics | _cost_metrics(outputs.routing, decoder.config), None)
    extra = routing_objective(outputs.routing, answer, decoder.reducer, decoder.config)
    if routed_samples is not None:
        share = routed_samples[0] / routed_samples[1].clamp(min=1)
    return BatchLoss(loss + extra.loss * share, metrics | extra.metrics, extra.consequences)


def routing_objective(
    routing: Routing, answer: AnswerLoss, reducer: DynamicPyramid, config: LlamaConfig
) -> RoutingObjective:
    """Judge the routes of a batch; every term is a mean over the samples that were routed.

    Args:
        routing: decisions of the batch.
        answer: language loss per sample.
        reducer: holds the configuration and the policy's state.
        config: sizes for the cost.
    """
    hinge = loss_of_routing(routing, reducer.config)
    loss = reducer.config.loss_weight * hinge
    metrics = {"routing_loss": hinge.detach()}
    if reducer.policy is None or not reducer.training:
        return RoutingObjective(loss, metrics, None)
    costs = _stage_costs(routing, config)  # (S + 1, B)
    routed = routing.is_routed.any(0) & (answer.counts > 0)  # (B,)
    seen = Consequences(
        answer.per_sample,
        torch.from_numpy(costs).to(hinge.device, torch.float32),
        torch.from_numpy(routed).to(hinge.device),
    )
    learned = reducer.policy(routing, seen)
    name = f"{reducer.config.objective}_loss"  # policy_loss or value_loss
    metrics |= {name: learned.detach(), "mu": reducer.policy.cost_weight().detach().clone()}
    seen = seen._replace(advantage_moments=routing.advantage_moments)
    return RoutingObjective(loss + learned, metrics, seen)


def _stage_costs(routing: Routing, config: LlamaConfig) -> np.ndarray:
    """Give every stage's share of the dense visual FLOPs: (S + 1, B)."""
    return stage_cost(
        routing.visual_counts,
        routing.layers,
        config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
    )


def _cost_metrics(routing: Routing, config: LlamaConfig) -> dict[str, Tensor]:
    """Say for the log what a method without routers cost, over samples with visual tokens."""
    has_image = routing.visual_counts[0] > 0
    if not has_image.any():
        return {}
    return {"visual_flops": torch.tensor(float(_stage_costs(routing, config).sum(0)[has_image].mean()))}
