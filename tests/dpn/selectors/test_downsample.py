"""Downsample: which sides a tower can read."""

import pytest

from dpn.build import build_selector
from dpn.methods import from_dict
from dpn.selectors.downsample import DownsampleConfig


def test_it_names_a_side_and_picks_among_no_features():
    config = DownsampleConfig(side=168)
    assert config.image_side(336, 14) == 168
    assert config.image_side(168, 14) == 168
    assert from_dict(config.to_dict()) == config
    assert build_selector(config.to_dict()) is None


@pytest.mark.parametrize(("side", "own"), [(350, 336), (170, 336), (7, 336)])
def test_a_side_that_the_tower_cannot_read_is_refused(side, own):
    with pytest.raises(
        ValueError, match=f"side={side} must be a multiple of .* 14 pixels and at most .* 336"
    ):
        DownsampleConfig(side=side).image_side(own, 14)


def test_a_side_of_nothing_is_refused():
    with pytest.raises(ValueError, match="side must be 1 or more, got 0"):
        DownsampleConfig(side=0)
