"""What every selector in front of the projector must hold (dpn/selectors/base.py).

A new selector adds a line to CASES and, where it can keep everything, to KEEPS_ALL.
"""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dpn.build import SELECTORS, build_reducer, build_selector
from dpn.methods import METHODS, from_dict
from dpn.selectors.base import SelectorConfig, amount_of, check_amount
from dpn.selectors.prumerge_plus import PruMergePlusConfig
from dpn.selectors.visionzip import VisionZipConfig
from tests.dpn.selectors.cases import GRID, WIDTH, attended, crop_of

CASES = {
    "prumerge_plus": PruMergePlusConfig(neighbours=3),
    "prumerge_plus, no samples": PruMergePlusConfig(uniform=0, iqr=0.5, neighbours=0.25),
    "prumerge_plus, nothing merged": PruMergePlusConfig(neighbours=0),
    "visionzip": VisionZipConfig(dominant=5, contextual=3),
    "visionzip, shares": VisionZipConfig(dominant=0.25, contextual=0.125),
    "visionzip, dominant only": VisionZipConfig(dominant=6, contextual=0),
    "visionzip, contextual only": VisionZipConfig(dominant=0, contextual=4),
}
KEEPS_ALL = {
    "prumerge_plus": PruMergePlusConfig(uniform=16.0, neighbours=3),
    "visionzip": VisionZipConfig(dominant=16, contextual=0),
    "visionzip, contextual only": VisionZipConfig(dominant=0, contextual=16),
}
each_case = pytest.mark.parametrize("name", CASES)


def selector(config):
    built = build_selector(config.to_dict())
    assert built is not None
    return built


def test_every_selector_is_tested_here():
    acting = {name for name, config in METHODS.items() if issubclass(config, SelectorConfig)}
    assert acting == {config.method for config in CASES.values()}
    assert acting == {config.method for config in KEEPS_ALL.values()}
    assert acting == {config.method for config in SELECTORS}


@each_case
def test_a_configuration_survives_config_json(name):
    assert from_dict(CASES[name].to_dict()) == CASES[name]


@each_case
def test_the_decoder_has_no_reducer(name):
    assert build_reducer(CASES[name].to_dict(), width=8, num_layers=4, intermediate_size=8) is None


@each_case
def test_a_batch_of_crops_equals_each_crop_alone(name):
    select, seen = selector(CASES[name]), attended(5)
    together = select(seen)
    assert together.features.shape == (sum(together.counts), WIDTH)
    for index, features in enumerate(together.features.split(together.counts)):
        alone = select(crop_of(seen, index))
        assert alone.counts == (len(features),)
        torch.testing.assert_close(alone.features, features)


@each_case
def test_a_part_of_every_crop_stays_and_crops_without_any_contrast_work(name):
    select, seen = selector(CASES[name]), attended(4)
    assert all(0 < count < 16 for count in select(seen).counts)
    even = seen._replace(attention=torch.full_like(seen.attention, 1 / 17))
    assert all(0 < count < 16 for count in select(even).counts)
    none = seen._replace(attention=torch.zeros_like(seen.attention), keys=torch.zeros_like(seen.keys))
    assert select(none).features.isfinite().all()


@pytest.mark.parametrize("name", KEEPS_ALL)
def test_keeping_everything_gives_the_features_as_they_were(name):
    seen = attended(3)
    kept = selector(KEEPS_ALL[name])(seen)
    assert kept.counts == (16,) * 3
    torch.testing.assert_close(kept.features, seen.features.flatten(0, 1), rtol=0, atol=1e-6)


@each_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_keep_their_dtype_and_ranks_their_precision(name, dtype):
    select, seen = selector(CASES[name]), attended(3)
    half = seen._replace(features=seen.features.to(dtype))
    assert select(half).features.dtype == dtype
    assert select(half).counts == select(seen).counts
    torch.testing.assert_close(select(half).features.float(), select(seen).features, atol=0.03, rtol=0.02)


@each_case
def test_gradients_reach_what_stays(name):
    seen = attended(2)
    features = seen.features.clone().requires_grad_()
    kept = selector(CASES[name])(seen._replace(features=features))
    kept.features.square().sum().backward()
    reached = (features.grad.abs().sum(-1) > 0).sum(1)  # (C,)
    assert (reached >= torch.tensor(kept.counts)).all()
    if CASES[name].method == "visionzip" and CASES[name].contextual:
        assert (reached == 16).all()


class Reads(TorchDispatchMode):
    """Refuses operators whose result's shape or value is read from the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "unique2"}, name
        return func(*args, **(kwargs or {}))


@each_case
def test_the_device_is_read_once_at_most(name, monkeypatch):
    reads = []
    bring = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: reads.append(1) or bring(tensor))
    seen = attended(3)
    with Reads():
        selector(CASES[name])(seen)
    assert len(reads) == (CASES[name].method == "prumerge_plus")


@pytest.mark.parametrize(
    ("value", "total", "count"),
    [
        (54 / 576, 576, 54),
        (0.0173611, 576, 10),
        (0.0173, 576, 9),
        (54 / 576, 64, 6),
        (10 / 576, 16, 0),
        (0, 16, 0),
        (1, 16, 1),
        (20.0, 16, 20),
    ],
)
def test_an_amount_is_a_share_below_one_and_a_count_from_one(value, total, count):
    check_amount("dominant", value)
    assert amount_of(value, total) == count


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            partial(VisionZipConfig, dominant=1.5),
            "dominant is a share of the features below 1, or .* got 1.5",
        ),
        (partial(VisionZipConfig, contextual=-0.1), "contextual is a share .* got -0.1"),
        (partial(PruMergePlusConfig, neighbours=float("nan")), "neighbours is a share .* got nan"),
        (partial(PruMergePlusConfig, neighbours=float("inf")), "neighbours is a share .* got inf"),
        (partial(PruMergePlusConfig, iqr=-1), "iqr must be a number of 0 or more, got -1"),
        (partial(PruMergePlusConfig, uniform=float("nan")), "uniform must be a number of 0 or more, got nan"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_grid_of_the_cases_is_what_their_counts_are_for():
    assert attended().features.shape == (3, GRID[0] * GRID[1], WIDTH)
