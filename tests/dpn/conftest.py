"""Fixtures of the method's tests."""

import pytest

from tests.dpn.pyramids import GRID, make_sample


@pytest.fixture
def samples():
    """A mixed batch: one image, text only, two images next to each other, another length."""
    return [
        make_sample(3, [GRID], 4, seed=1),
        make_sample(6, [], 3, seed=2),
        make_sample(2, [GRID, GRID], 5, seed=3),
        make_sample(1, [GRID], 7, seed=4),
    ]
