"""Dynamic pooling experts (paper 4.2): read a state, choose an expert, pool the visual tokens.

Shapes: B samples, S DPE layers, E experts, N packed rows before and M after pooling, D model width.

ZeRO-3 and DDP need every rank to run the same parameterised modules in the same order whatever it decides:
every DPE runs its router on every batch, experts have no parameters, and the router's output always reaches
the loss.
"""

import numpy as np
import torch
from torch import Tensor, nn
from transformers import initialization

from dpn.config import DpnConfig
from dpn.experts import GridPool, pool_rows, to_device
from dpn.layout import Layout
from dpn.policy import PolicyObjective
from dpn.router import Float32Linear, Router
from dpn.routing import UNROUTED, Routing

IDENTITY = GridPool((1, 1))


class DynamicPyramid(nn.Module):
    """All DPEs of a decoder: one router each, shared experts."""

    def __init__(self, config: DpnConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.experts = tuple(GridPool(kernel, config.edge) for kernel in config.kernels)
        sources = 2 if config.router_source == "both" else 1
        self.routers = nn.ModuleList(Router(width * sources, len(config.kernels)) for _ in config.layers)
        hidden = max(1, width * sources // 4)
        self.policy = PolicyObjective(config, hidden) if config.objective == "policy" else None

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers that a DPE stands in front of."""
        return self.config.layers

    def new_routing(self, layout: Layout) -> Routing:
        """Start the record of a forward pass with the unpooled counts."""
        return Routing(
            self.config.kernels,
            self.config.layers,
            token_counts=[np.array(layout.lengths)],
            visual_counts=[layout.visual_counts()],
        )

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, routes: np.ndarray | None
    ) -> tuple[Tensor, Layout]:
        """Run DPE number `index`: Eq. 4 and 5.

        Args:
            index: which DPE, from 0.
            hidden: (N, D) packed residual stream in front of its layer.
            layout: where everything lies in it.
            routing: the record to write to.
            routes: (B, S) expert indices that override the choice where they are not negative, or None.

        Returns:
            (M, D) and its layout.
        """
        logits, router_hidden = self.routers[index](self._states(hidden, layout))
        if any(self.config.router_bias):
            logits = logits + to_device(np.array(self.config.router_bias, np.float32), logits.device)
        logits = logits / self.config.temperature  # (B, E)
        allowed = self._allowed(layout)
        choice, weights = self._choose(logits, allowed, index, routes)
        experts = [IDENTITY if expert == UNROUTED else self.experts[expert] for expert in choice]
        if any(expert.kernel != (1, 1) for expert in experts):
            source, layout = layout.pool(experts)
            hidden = pool_rows(hidden, to_device(source, hidden.device), self.config.pooling)
        hidden = self._gate(hidden, layout, weights, choice)
        routing.logits.append(logits)
        routing.choices.append(choice)
        routing.token_counts.append(np.array(layout.lengths))
        routing.visual_counts.append(layout.visual_counts())
        if routing.router_hidden is None:
            routing.router_hidden = router_hidden
        return hidden, layout

    def init_weights(self, module: nn.Module) -> None:
        """Initialise a module that owns parameters or buffers; called by the decoder's `_init_weights`."""
        if isinstance(module, Float32Linear):
            module.init_weights()
        elif isinstance(module, PolicyObjective):
            initialization.constant_(module.mu, self.config.mu)
            initialization.zeros_(module.loss_window)
            initialization.zeros_(module.num_observed)

    def _states(self, hidden: Tensor, layout: Layout) -> Tensor:
        """Gather what the router reads: (B, D), or (B, 2D) for `both`."""
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

    def _allowed(self, layout: Layout) -> np.ndarray:
        """(B, E) bool on the host: experts that may be chosen.

        No expert at all means the sample is left alone.
        """
        config = self.config
        counts = layout.visual_counts()
        left = np.stack([layout.counts_after(expert) for expert in self.experts], axis=1)  # (B, E)
        allowed = np.ones_like(left, dtype=bool)
        if self.training and config.min_tokens:
            allowed = (left >= config.min_tokens) | (left == counts[:, None])
        has_grid = np.zeros(len(counts), bool)
        has_grid[[span.sample for span in layout.spans if span.grid is not None]] = True
        if config.router_source != "last":
            has_grid &= self._has_token(layout, has_grid)
        leaves_something = (left > 0) | (counts == 0)[:, None]
        return allowed & leaves_something & (has_grid & (counts >= config.skip_below))[:, None]

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
        self, logits: Tensor, allowed: np.ndarray, index: int, routes: np.ndarray | None
    ) -> tuple[np.ndarray, Tensor]:
        """Choose an expert per sample.

        Gives the indices (B,) on the host, and the weights (B, E) that the gate may use.
        """
        weights = logits.softmax(-1)
        mode = self.config.train_choice if self.training else self.config.eval_choice
        routable = allowed.any(1)
        drawable = allowed | np.logical_not(routable)[:, None]  # rows to be left alone may draw anything
        forced = np.full(len(allowed), UNROUTED) if routes is None else routes[:, index]
        if mode == "static":
            forced = np.where(forced < 0, self.config.static_choice[index], forced)
        elif mode == "random":
            drawn = torch.multinomial(torch.from_numpy(drawable).float(), 1).squeeze(1).numpy()
            forced = np.where(forced < 0, drawn, forced)
        if (forced >= 0).all():
            return np.where(routable, forced, UNROUTED), weights
        masked = logits.masked_fill(~to_device(drawable, logits.device), float("-inf"))
        if mode == "gumbel":
            masked = masked - torch.empty_like(masked).exponential_().log()
            weights = masked.softmax(-1)
        chosen = (
            torch.multinomial(masked.softmax(-1), 1).squeeze(1) if mode == "sample" else masked.argmax(-1)
        )
        free = chosen.cpu().numpy()  # the one device read of a DPE
        return np.where(routable, np.where(forced < 0, free, forced), UNROUTED), weights

    def _gate(self, hidden: Tensor, layout: Layout, weights: Tensor, choice: np.ndarray) -> Tensor:
        """Multiply the visual rows (M, D) by the chosen expert's weight (Eq. 4).

        Rows that the identity expert kept are multiplied, too.
        """
        if self.config.gate == "none":
            return hidden
        index = to_device(np.maximum(choice, 0), weights.device)
        gate = weights.gather(1, index[:, None]).squeeze(1)  # (B,)
        if self.config.gate == "straight_through":
            gate = gate / gate.detach()
        gate = torch.where(to_device(choice != UNROUTED, gate.device), gate, gate.new_ones(()))
        rows = gate[to_device(layout.samples, gate.device)]  # (M,)
        rows = torch.where(to_device(layout.visual_rows(), gate.device), rows, rows.new_ones(()))
        return hidden * rows[:, None].to(hidden.dtype)
