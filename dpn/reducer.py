"""What the decoder asks of a method that shortens its sequence between layers.

`PyramidLlamaModel` calls the reducer in front of every layer in `reducer.layers`, in training and in the
prefill of a prompt, never in decoding steps. Whatever it returns, the decoder derives masks, rotary
embeddings and cache from the layout.

Rules, which tests/dpn/baselines/test_common.py holds every reducer to:

* Nothing is read from the device, but for the choice of a router. How many tokens stay is known on the host.
* Only visual rows go; the last prompt token stays, also where it is a visual one.
* Every rank calls the same modules on every batch, whatever it decides: ZeRO-3 and DDP need that. So a
  reducer with parameters, or one that calls the next layer's, does so for text-only samples, too.
* Nothing is kept on the reducer between calls: what a later stage or the caller needs goes into `Routing`.

Shapes: B samples, S places, N packed rows in front of a place and M behind it, C head width, D model width.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from torch import Tensor, nn

from dpn.layout import Layout
from dpn.method import ReducerConfig
from dpn.routing import Routing

ConfigT = TypeVar("ConfigT", bound=ReducerConfig)


@dataclass(frozen=True)
class Boundary:
    """What lies around the place where tokens are reduced."""

    next_layer: nn.Module
    """The decoder layer that follows, a LlamaDecoderLayer."""
    rotary: tuple[Tensor, Tensor]
    """(1, N, C) twice: cosine and sine of the rows' positions in the layer in front of the place."""
    attention: Tensor | None = None
    """(N,) float32 what every sample's last prompt token attends to in the layer in front of the place, mean
    over heads; where the reducer `needs_attention`."""
    routes: np.ndarray | None = None
    """(B, S) expert indices that override a router's choice where they are not negative."""


class TokenReducer(nn.Module, Generic[ConfigT]):
    """Shortens a packed sequence in front of some decoder layers."""

    num_experts: int = 0
    """Experts that forced routes may name; 0 where nothing is routed, and routes and budgets are refused."""

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config

    @property
    def layers(self) -> tuple[int, ...]:
        """The decoder layers in front of which tokens are reduced."""
        return self.config.places

    @property
    def needs_attention(self) -> bool:
        """Whether the layer in front of every place is to give the attention of the last prompt tokens."""
        return False

    def new_routing(self, layout: Layout, shift: Tensor | None = None) -> Routing:
        """Start the record of a forward pass with the tokens of its samples, and their shifts (B,)."""
        routing = Routing((), self.layers, shift=shift)
        routing.count(layout)
        return routing

    def forward(
        self, index: int, hidden: Tensor, layout: Layout, routing: Routing, boundary: Boundary
    ) -> tuple[Tensor, Layout]:
        """Reduce the tokens at place number `index`.

        Args:
            index: which place, from 0.
            hidden: (N, D) packed residual stream in front of its layer.
            layout: where everything lies in it.
            routing: the record of this pass, for decisions that someone wants to know. The decoder counts the
                tokens itself.
            boundary: what lies around.

        Returns:
            (M, D) and its layout; the same objects where nothing was reduced.
        """
        raise NotImplementedError

    def init_weights(self, module: nn.Module) -> None:
        """Initialise a module that owns parameters or buffers; called by the decoder's `_init_weights`."""
