"""The routing token's embedding as a parameter of its own, for runs that freeze the vocabulary.

A router that reads the token (`preset=paper`) needs an embedding that learns, also where the language model's
weights are frozen under adapters. Letting the whole vocabulary learn for one row would change every word.
The row stands beside the embedding's weight, in the same module, so that ZeRO-3 gathers both together; in
files it is the vocabulary's last row again.
"""

from typing import Any

import torch
from torch import Tensor, nn

from llava.model.projector import gathered

NAME = "router_row"


class _Replacing:
    """A forward hook that puts the row in the place of one token's embedding."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        is_token = arguments[0] == self.index
        return torch.where(is_token[..., None], module.get_parameter(NAME).to(output.dtype), output)


def split_off(embedding: nn.Embedding, index: int, *, dtype: torch.dtype | None = None) -> None:
    """Give an embedding the parameter `router_row`, (D,), which is used for token `index` from now on.

    Args:
        embedding: of the vocabulary; its own row of the token is kept, but not read any more.
        index: the token's id.
        dtype: in which the row learns; None is the embedding's.
    """
    weight = embedding.get_parameter("weight")
    with gathered([weight]):
        row = weight.detach()[index].to(dtype or weight.dtype).clone()
    embedding.register_parameter(NAME, nn.Parameter(row))
    embedding.register_forward_hook(_Replacing(index))
