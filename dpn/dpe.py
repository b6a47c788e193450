"""Dynamic pooling experts (paper 4.2): read a state, choose an expert, pool the visual tokens.

Shapes: B samples, S DPE layers, E experts, N packed rows before and M after pooling, D model width.

ZeRO-3 and DDP need every rank to run the same modules in the same order whatever it decides:
every DPE runs its router on every batch, experts have no parameters, and the router's output always reaches
the loss.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import initialization

from dpn.config import DpnConfig
from dpn.consequences import Objective
from dpn.experts import GridPool, pool_rows, to_device
from dpn.layout import Layout
from dpn.policy import PolicyObjective
from dpn.reducer import Boundary, TokenReducer
from dpn.router import ROUTERS, Float32Linear, ZeroLinear, num_features
from dpn.routing import UNROUTED, Routing
from dpn.value import StageCosts, ValueObjective, loss_increase

IDENTITY = GridPool((1, 1))
OBJECTIVES: dict[str, type[PolicyObjective] | type[ValueObjective]] = {
    "policy": PolicyObjective,
    "value": ValueObjective,
}
"""What learns from consequences, by `DpnConfig.objective`."""
SMALLEST = 1e-9
"""Probability below which a choice has no gradient."""


class Choice(NamedTuple):
    """What a DPE chose, and from what."""

    expert: np.ndarray
    """(B,) index on the host, or UNROUTED."""
    weights: Tensor
    """(B, E) what the gate may multiply with."""
    drawn_from: Tensor
    """(B, E) probabilities that the choice was drawn with; the router's own where nothing was drawn."""


class DynamicPyramid(TokenReducer[DpnConfig]):
    """All DPEs of a decoder: one router each, shared experts."""

    def __init__(self, config: DpnConfig, width: int, costs: StageCosts | None = None) -> None:
        """Build routers and, where the objective has one, its state.

        Args:
            config: what the DPEs are.
            width: D.
            costs: what the decoder's stages cost, which objective=value weighs experts by.
        """
        super().__init__(config)
        if config.objective == "value" and costs is None:
            raise ValueError("objective=value weighs costs: give `costs`, or use dpn.build.build_reducer")
        self.costs = costs
        self.experts = tuple(GridPool(kernel, config.edge) for kernel in config.kernels)
        self.num_experts = len(self.experts)
        width = width * (2 if config.router_source == "both" else 1)
        make = ROUTERS[config.router]
        predictor = ZeroLinear if config.objective == "value" else Float32Linear  # nothing is known at first
        self.routers = nn.ModuleList(make(width, len(config.kernels), predictor) for _ in config.layers)
        features = num_features(config.router, width)
        objective = OBJECTIVES.get(config.objective)
        self.policy = None if objective is None else objective(config, features)

    def new_routing(self, layout: Layout, shift: Tensor | None = None) -> Routing:
        """Start the record of a forward pass, whose choices are among the kernels."""
        routing = super().new_routing(layout, shift)
        routing.kernels = self.config.kernels
        return routing

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Run DPE number `index`, Eq. 4 and 5: (N, D) to (M, D). `boundary.routes` override its choice."""
        layout.require_grids(self.config.method)
        routes = boundary.routes
        outputs, router_hidden = self.routers[index](self._states(hidden, layout))  # (B, E), (B, F)
        left = np.stack([layout.counts_after(expert) for expert in self.experts], axis=1)  # (B, E)
        direction = self._direction(index, left, routing)
        logits = self._logits(outputs, direction)
        scores = self._shifted(logits, direction, routing)
        lost = np.stack([layout.loses_image(expert) for expert in self.experts], axis=1)  # (B, E)
        allowed = self._allowed(layout, left, lost)
        choice, weights, drawn_from = self._choose(scores, logits, allowed, index, routes)
        choice = self._keep_something(choice, None if routes is None else routes[:, index], lost)
        experts = [IDENTITY if expert == UNROUTED else self.experts[expert] for expert in choice]
        if any(expert.kernel != (1, 1) for expert in experts):
            source, layout = layout.pool(experts)
            hidden = pool_rows(hidden, to_device(source, hidden.device), self.config.pooling)
        hidden = self._gate(hidden, layout, weights, choice)
        if self.training:
            routing.log_chosen.append(log_of_chosen(drawn_from, choice))
        routing.outputs.append(outputs)
        routing.router_hidden.append(router_hidden)
        routing.logits.append(logits)
        routing.directions.append(direction)
        routing.choices.append(choice)
        return hidden, layout

    def init_weights(self, module: nn.Module) -> None:
        """Initialise a module that owns parameters or buffers; called by the decoder's `_init_weights`."""
        if isinstance(module, Float32Linear):
            module.init_weights()
        elif isinstance(module, Objective):
            for name, buffer in module.named_buffers(recurse=False):
                initialization.constant_(buffer, self.config.mu if name == "mu" else 0)

    def _states(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Gather what the router reads: (B, D), or (B, 2D) for `both`."""
        if self.config.router_gradient == "stopped":
            hidden = hidden.detach()
        last = hidden[to_device(layout.last_rows, hidden.device)]  # (B, D)
        if self.config.router_source == "last":
            return last
        samples = to_device(layout.router_samples, hidden.device)
        rows = hidden[to_device(layout.router_rows, hidden.device)].float()  # (R, D)
        total = rows.new_zeros(last.shape).index_add(0, samples, rows)  # (B, D)
        count = rows.new_zeros(len(last)).index_add(0, samples, rows.new_ones(len(rows)))
        token = (
            total / count.clamp(min=1)[:, None]
        )  # mean over a sample's routing tokens; zero where it has none
        return token if self.config.router_source == "token" else torch.cat([token, last.float()], dim=-1)

    def _direction(self, index: int, left: np.ndarray, routing: Routing) -> np.ndarray:
        """(E,) or (B, E) what a shift of 1 adds to `temperature * logits` where an expert is chosen.

        That is every expert's rate, or what its stage saves against costing nothing for objective=value.
        """
        if self.config.objective != "value":
            return np.array(self.config.rates, np.float32)
        assert self.costs is not None
        return -self.costs.of_experts(index, left, routing.visual_counts[0])

    def _logits(self, outputs: Tensor, direction: np.ndarray) -> Tensor:
        """Make the router's outputs (B, E) logits: bias, temperature, and costs for objective=value."""
        config, logits = self.config, outputs
        if config.objective == "value":
            logits = config.mu * to_device(direction, outputs.device) - loss_increase(outputs)
        if any(config.router_bias):
            logits = logits + to_device(np.array(config.router_bias, np.float32), logits.device)
        return logits / config.temperature

    def _shifted(self, logits: Tensor, direction: np.ndarray, routing: Routing) -> Tensor:
        """Add the samples' shifts to logits (B, E), for the choice only; the gate doesn't see it.

        So a shift is exactly what forcing the routes that it leads to would be.
        """
        if routing.shift is None:
            return logits
        slope = to_device(np.atleast_2d(direction / self.config.temperature), logits.device)
        return logits + routing.shift.to(logits.device)[:, None] * slope

    def _allowed(self, layout: Layout, left: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """(B, E) bool on the host: experts that may be chosen.

        By the visual tokens (B, E) that they leave, and whether they leave nothing of an image (B, E).

        No expert at all means the sample is left alone.
        """
        config = self.config
        counts = layout.visual_counts()
        allowed = np.ones_like(left, dtype=bool)
        if self.training and config.min_tokens:
            allowed = (left >= config.min_tokens) | (left == counts[:, None])
        has_grid = layout.has_grid()
        if config.router_source != "last":
            has_grid &= self._has_token(layout, has_grid)
        return allowed & ~lost & (has_grid & (counts >= config.skip_below))[:, None]

    def _keep_something(self, choice: np.ndarray, forced: np.ndarray | None, lost: np.ndarray) -> np.ndarray:
        """Leave samples alone whose static expert would leave nothing of an image: `lost` (B, E).

        Raises:
            ValueError: `forced` (B,) asks for such an expert.
        """
        loses = np.take_along_axis(lost, np.maximum(choice, 0)[:, None], axis=1)[:, 0]
        loses &= choice != UNROUTED
        if forced is not None and (loses & (forced >= 0)).any():
            sample = int(np.argmax(loses & (forced >= 0)))
            rows, columns = self.config.kernels[choice[sample]]
            raise ValueError(
                f"routes force {rows}x{columns} on sample {sample}, which would leave nothing of one of its "
                f"images (edge={self.config.edge}); force a smaller kernel, or -1 for the router's choice"
            )
        return np.where(loses, UNROUTED, choice)

    def _has_token(self, layout: Layout, needed: np.ndarray) -> np.ndarray:
        """(B,) bool: the sample has a routing token.

        Truncation may have cut it off in training; a prompt must have it.

        Raises:
            ValueError: a prompt with visual tokens lacks the routing token.
        """
        found = np.zeros(len(layout.lengths), bool)
        found[layout.router_samples] = True
        if not self.training and (needed & ~found).any():
            raise ValueError(
                f"sample {int(np.argmax(needed & ~found))} has visual tokens but no routing token, which "
                f"router_source={self.config.router_source} reads; append it to the question "
                f"(llava.conversation.with_routing_token)"
            )
        return found

    def _choose(
        self,
        scores: Tensor,
        logits: Tensor,
        allowed: np.ndarray,
        index: int,
        routes: np.ndarray | None,
    ) -> Choice:
        """Choose an expert per sample by scores (B, E), which are the logits (B, E) and their shift."""
        probabilities = logits.softmax(-1)
        mode = self.config.train_choice if self.training else self.config.eval_choice
        routable = allowed.any(1)
        drawable = allowed | np.logical_not(routable)[:, None]  # rows to be left alone may draw anything
        forced = np.full(len(allowed), UNROUTED) if routes is None else routes[:, index]
        if mode == "static":
            forced = np.where(forced < 0, self.config.static_choice[index], forced)
        elif mode == "random":
            drawn = torch.multinomial(torch.from_numpy(drawable).float(), 1).squeeze(1).numpy()
            forced = np.where(forced < 0, drawn, forced)
            uniform = to_device(drawable / drawable.sum(1, keepdims=True), logits.device).to(logits.dtype)
            return Choice(np.where(routable, forced, UNROUTED), probabilities, uniform)
        if (forced >= 0).all():
            return Choice(np.where(routable, forced, UNROUTED), probabilities, probabilities)
        allows = to_device(drawable, logits.device)
        masked = scores.masked_fill(~allows, float("-inf"))
        weights = drawn_from = probabilities
        if mode == "sample":
            drawn_from = self._explored(masked.softmax(-1), allows)
            free = torch.multinomial(drawn_from.detach(), 1).squeeze(1)
        elif mode == "gumbel":
            drawn_from = masked.softmax(-1)  # what the largest of the perturbed scores is drawn with
            masked = masked - torch.empty_like(masked).exponential_().log()
            weights, free = masked.softmax(-1), masked.argmax(-1)
        else:
            free = masked.argmax(-1)
        chosen = free.cpu().numpy()  # the one device read of a DPE
        return Choice(np.where(routable, np.where(forced < 0, chosen, forced), UNROUTED), weights, drawn_from)

    def _explored(self, probabilities: Tensor, allows: Tensor) -> Tensor:
        """Mix probabilities (B, E) with the uniform share over the experts that are allowed (B, E)."""
        if self.policy is None or not self.config.uniform_share:
            return probabilities
        share = self.config.uniform_share * self.policy.exploration()
        uniform = allows / allows.sum(-1, keepdim=True)
        return (1 - share) * probabilities + share * uniform

    def _gate(self, hidden: Tensor, layout: Layout, weights: Tensor, choice: np.ndarray) -> Tensor:
        """Multiply the visual rows (M, D) by the chosen expert's weight (Eq. 4).

        Rows that the identity expert kept are multiplied, too.
        """
        if self.config.gate == "none":
            return hidden
        index = to_device(np.maximum(choice, 0), weights.device)
        gate = weights.gather(1, index[:, None]).squeeze(1)  # (B,)
        if self.config.gate == "straight_through":
            gate = _one(gate)
        gate = torch.where(to_device(choice != UNROUTED, gate.device), gate, gate.new_ones(()))
        rows = gate[to_device(layout.samples, gate.device)]  # (M,)
        rows = torch.where(to_device(layout.visual_rows(), gate.device), rows, rows.new_ones(()))
        return hidden * rows[:, None].to(hidden)


def _one(gate: Tensor) -> Tensor:
    """Give ones (B,) with the gradient of log p; none where p is too small for it (a forced expert's)."""
    value = gate.detach()
    is_tiny = value < SMALLEST
    return torch.where(is_tiny, value.new_ones(()), gate / value.masked_fill(is_tiny, 1.0))


def log_of_chosen(drawn_from: Tensor, choice: np.ndarray) -> Tensor:
    """Give (B,) log of the chosen expert's probability among (B, E); 0 where nothing was chosen."""
    expert = to_device(np.maximum(choice, 0), drawn_from.device)
    probability = drawn_from.gather(1, expert[:, None]).squeeze(1)
    return probability.clamp(min=SMALLEST).log() * to_device(choice != UNROUTED, probability.device)
