"""Pooling respects rows, columns and images, and is what torch's pooling layers compute."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from dpn.experts import GridPool, pool_rows


@pytest.mark.parametrize(
    ("kernel", "kept"), [((1, 1), 576), ((1, 2), 288), ((2, 2), 144), ((2, 1), 288), ((4, 4), 36)]
)
def test_pooling_keeps_one_token_per_window(kernel, kept):
    assert len(GridPool(kernel).windows((24, 24))) == kept


def test_a_window_is_a_square_of_the_image_not_a_run_of_the_sequence():
    tokens = torch.arange(16.0).reshape(16, 1)
    assert pool_rows(
        tokens, torch.from_numpy(GridPool((2, 2)).windows((4, 4)).copy()), "max"
    ).flatten().tolist() == [5, 7, 13, 15]


@settings(max_examples=60, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    ceil=st.booleans(),
)
def test_max_pooling_equals_torchs_on_any_grid(grid, kernel, ceil):
    if not ceil and (grid[0] < kernel[0] or grid[1] < kernel[1]):
        return
    tokens = torch.from_numpy(np.random.default_rng(0).normal(size=(grid[0] * grid[1], 3)))
    image = tokens.T.reshape(1, 3, *grid)
    expected = functional.max_pool2d(image, kernel, stride=kernel, ceil_mode=ceil)
    expert = GridPool(kernel, "ceil" if ceil else "floor")
    assert expert.grid(grid) == tuple(expected.shape[2:])
    pooled = pool_rows(tokens, torch.from_numpy(expert.windows(grid).copy()), "max")
    assert torch.equal(pooled, expected[0].flatten(1).T)


def test_an_average_counts_every_token_of_a_window_once():
    tokens = torch.arange(8.0).reshape(8, 1)
    pooled = pool_rows(tokens, torch.from_numpy(GridPool((2, 2)).windows((2, 4)).copy()), "avg")
    assert pooled.flatten().tolist() == [2.5, 4.5]


@pytest.mark.parametrize(("grid", "kernel"), [((6, 6), (4, 4)), ((5, 7), (3, 2)), ((4, 4), (2, 2))])
def test_an_average_at_an_edge_equals_torchs_over_the_tokens_that_are_there(grid, kernel):
    tokens = torch.from_numpy(np.random.default_rng(0).normal(size=(grid[0] * grid[1], 3)))
    expected = functional.avg_pool2d(
        tokens.T.reshape(1, 3, *grid), kernel, stride=kernel, ceil_mode=True, count_include_pad=False
    )
    pooled = pool_rows(tokens, torch.from_numpy(GridPool(kernel).windows(grid).copy()), "avg")
    assert torch.allclose(pooled, expected[0].flatten(1).T, rtol=1e-12)


def test_a_kept_row_is_its_own_average_bit_for_bit():
    tokens = torch.randn(3, 5)
    assert torch.equal(pool_rows(tokens, torch.arange(3)[:, None].repeat(1, 6), "avg"), tokens)


def test_the_papers_three_stages_divide_both_of_its_grids():
    for side, sides in ((24, (12, 6, 3)), (32, (16, 8, 4))):
        grid = (side, side)
        for expected in sides:
            grid = GridPool((2, 2), "floor").grid(grid)
            assert grid == (expected, expected)
