"""Upstream's helper is accepted and leaves torch alone."""

import torch

from llava.utils import disable_torch_init


def test_layers_made_afterwards_still_get_their_initial_values():
    resets = torch.nn.Linear.reset_parameters, torch.nn.LayerNorm.reset_parameters
    disable_torch_init()
    assert (torch.nn.Linear.reset_parameters, torch.nn.LayerNorm.reset_parameters) == resets
    torch.manual_seed(0)
    first = torch.nn.Linear(4, 4).weight
    torch.manual_seed(0)
    assert torch.equal(first, torch.nn.Linear(4, 4).weight)
    assert first.abs().sum() > 0
