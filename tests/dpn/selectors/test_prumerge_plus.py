"""PruMerge+: which features stay, and what they take in, computed by hand."""

import numpy as np
import pytest
import torch

from dpn.selectors.prumerge_plus import (
    PruMergePlusConfig,
    find_outliers,
    lattice,
    merge_others,
    prumerge_plus,
)
from tests.dpn.selectors.cases import attended, one_crop


def test_an_outlier_lies_above_the_third_quartile_by_that_factor_of_their_distance():
    attention = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0]])  # quartiles 2 and 4: the limit is 4 + factor * 2
    assert find_outliers(attention, 1.5).tolist() == [[False] * 4 + [True]]  # 7
    assert find_outliers(attention, 0.0).tolist() == [[False] * 4 + [True]]  # 4 itself isn't above 4
    assert find_outliers(attention - 0.5 * (attention == 9), 2.25).sum() == 1  # limit 8.5: the largest alone
    two = torch.tensor([[1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0]])  # quartiles 2 and 2
    assert find_outliers(two, 1.5).tolist() == [[False] * 6 + [True]]


def test_without_an_outlier_the_feature_with_the_most_attention_stays():
    assert find_outliers(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), 10.0).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("grid", "count", "cells"),
    [
        ((4, 4), 0, []),
        ((4, 4), 1, [10]),
        ((4, 4), 4, [5, 7, 13, 15]),
        ((4, 4), 99, list(range(16))),
        ((1, 8), 4, [1, 3, 5, 7]),
        ((24, 24), 144, None),
    ],
)
def test_samples_lie_evenly_in_the_grid(grid, count, cells):
    found = lattice(grid, count)
    assert len(set(found.tolist())) == len(found)
    if cells is not None:
        assert found.tolist() == cells
        return
    assert len(found) == count
    assert set(np.diff(found[:12])) == {2}


def test_a_kept_feature_is_the_mean_of_itself_and_its_likest_others_by_attention():
    seen = one_crop(
        features=[[1.0], [10.0], [100.0], [1000.0]],
        attention=[0.4, 0.1, 0.3, 0.2],
        keys=[[1.0, 0.0], [3.0, 0.1], [0.0, 5.0], [0.1, 0.9]],
        grid=(2, 2),
    )
    kept = torch.tensor([[True, False, True, False]])
    merged = merge_others(seen, kept, 1)[0, :, 0]
    assert merged[0].item() == pytest.approx((0.4 * 1 + 0.1 * 10) / 0.5)  # its direction is that of 1
    assert merged[2].item() == pytest.approx((0.3 * 100 + 0.2 * 1000) / 0.5)  # and this one's that of 3
    both = merge_others(seen, kept, 2)[0, :, 0]
    assert both[0].item() == pytest.approx((0.4 * 1 + 0.1 * 10 + 0.2 * 1000) / 0.7)
    everything = merge_others(seen, kept, 4)[0, :, 0]
    assert torch.equal(everything, both)  # the other kept one is never taken in
    assert torch.equal(merge_others(seen, kept, 0), seen.features)


def test_outliers_and_samples_stay_in_the_order_of_the_image():
    attention = [0.01] * 16
    attention[15], attention[2] = 0.3, 0.2
    seen = one_crop([[float(index)] for index in range(16)], attention, [[1.0]] * 16, (4, 4))
    without = prumerge_plus(PruMergePlusConfig(uniform=0, neighbours=0), seen)
    assert without.features.flatten().tolist() == [2, 15]
    plus = prumerge_plus(PruMergePlusConfig(uniform=2, neighbours=0), seen)  # 4 samples: 5, 7, 13 and 15
    assert plus.features.flatten().tolist() == [2, 5, 7, 13, 15]
    assert plus.counts == (5,)


def test_a_crowded_crop_keeps_more_than_an_empty_one():
    seen = attended(2)
    attention = torch.full((2, 16), 0.01)
    attention[0, 3], attention[1, [1, 6, 9]] = 0.2, torch.tensor([0.2, 0.3, 0.2])
    counts = prumerge_plus(PruMergePlusConfig(uniform=1), seen._replace(attention=attention)).counts
    assert counts == (2, 7)  # 1 and 1 sample; 3, and as many samples as make a lattice: 4


def test_the_defaults_leave_a_quarter_where_a_sixteenth_are_outliers():
    seen = attended(1, grid=(24, 24))
    attention = torch.full((1, 576), 1e-4)
    attention[0, 1 : 1 + 36] = 0.02  # 36 outliers, and about 108 samples, of which some lie on them
    [count] = prumerge_plus(PruMergePlusConfig(), seen._replace(attention=attention)).counts
    assert 130 <= count <= 144
