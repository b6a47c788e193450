"""What a decoder and its images allow a configuration to ask for."""

import pytest

from dpn.build import check_reachable
from tests.dpn.pyramids import make_config

SIZES = {"num_layers": 8, "hidden_size": 64, "intermediate_size": 160}


def test_a_budget_below_the_cheapest_route_is_refused_with_what_that_costs():
    # layers 2, 4, 6 of 8 on 8x8: 64, 16, 4 and 1 tokens, two layers each
    def layer(n):
        return 4 * n * 64 * 64 + 2 * n * n * 64 + 2 * n * 64 * 160

    least = sum(layer(n) for n in (64, 16, 4, 1)) / (4 * layer(64))
    check_reachable(make_config(layers=(2, 4, 6), budget=least + 1e-6), (8, 8), **SIZES)
    with pytest.raises(ValueError, match=rf"8x8 tokens costs at least {least:.3f} of the dense visual FLOPs"):
        check_reachable(make_config(layers=(2, 4, 6), budget=least - 1e-6), (8, 8), **SIZES)


def test_without_a_budget_everything_is_in_reach():
    check_reachable(make_config(layers=(2, 4, 6)), (8, 8), **SIZES)
    check_reachable(make_config(layers=(2, 4, 6), preset="paper"), (8, 8), **SIZES)
