"""The router R of Eq. 5: from the state of a few positions to a probability for every pooling expert.

Shapes: B samples, E experts, D model width. Everything is computed in float32 whatever the model's dtype is.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 and keeps whatever dtype the engine gave its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in) of any dtype to float32 (B, out)."""
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(input.device.type, enabled=False):
            return functional.linear(input.float(), self.weight.float(), bias)

    def init_weights(self) -> None:
        """Kaiming-uniform with a = sqrt(5) as released, bias zero; skips what a checkpoint has filled."""
        initialization.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            initialization.zeros_(self.bias)


class ZeroLinear(Float32Linear):
    """A linear layer whose outputs start at zero."""

    def init_weights(self) -> None:
        """Zeros; skips what a checkpoint has filled."""
        initialization.zeros_(self.weight)


class Float32LayerNorm(nn.LayerNorm):
    """Layer normalisation in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, D) of any dtype to float32 (B, D)."""
        return functional.layer_norm(
            input.float(), self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )


class Router(nn.Module):
    """LayerNorm(D) -> Linear(D, D/4) -> GELU -> Linear(D/4, E).

    This is the released router; both linear maps are without bias.
    """

    def __init__(self, width: int, num_experts: int, predictor: type[Float32Linear] = Float32Linear) -> None:
        super().__init__()
        self.norm = Float32LayerNorm(width)
        self.hidden = Float32Linear(width, max(1, width // 4), bias=False)
        self.predictor = predictor(max(1, width // 4), num_experts, bias=False)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Give float32 logits (B, E) and the hidden layer (B, D/4) of states (B, D)."""
        hidden = functional.gelu(self.hidden(self.norm(state)))
        return self.predictor(hidden), hidden


class LinearRouter(nn.Module):
    """One linear map to E logits without bias: the released router of version v2."""

    def __init__(self, width: int, num_experts: int, predictor: type[Float32Linear] = Float32Linear) -> None:
        super().__init__()
        self.predictor = predictor(width, num_experts, bias=False)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Give float32 logits (B, E) and, in place of a hidden layer, the states (B, D)."""
        return self.predictor(state), state.float()


ROUTERS = {"mlp": Router, "linear": LinearRouter}
"""By `DpnConfig.router`."""


def num_features(kind: str, width: int) -> int:
    """Count the features that a router of this kind gives beside its logits."""
    return width if kind == "linear" else max(1, width // 4)
