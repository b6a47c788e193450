"""The run that the machines share: its length, its flags, and what it must have learned."""

import torch

from tests.llava.train.distributed.results import losses, weights

STEPS = 8
NO_PROGRESS = ("--disable_tqdm", "True", "--ddp_timeout", "120")


def check_same_training(found, expected):
    """Demand what one process has learned; other orders of float32 sums differ by less (test_zero.py)."""
    assert losses(found).shape == (STEPS, 2)
    torch.testing.assert_close(losses(found), losses(expected), atol=1e-4, rtol=1e-5)
    ours, theirs = weights(found), weights(expected)
    assert all((ours[name] - theirs[name]).abs().max() < 2e-4 for name in theirs)
