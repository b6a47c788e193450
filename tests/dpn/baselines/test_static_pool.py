"""Static pooling is DPN with one route for all and no gate; a small case by hand."""

import pytest
import torch
from transformers.cache_utils import DynamicCache

from dpn.baselines.static_pool import StaticPoolConfig
from dpn.cache import lengths
from tests.dpn.pyramids import GRID, make_batch, make_config, make_model, make_sample

ROUTES = [((1, 2), (1, 1), (2, 2)), ((2, 2), (2, 2), (2, 2)), ((1, 1), (1, 2), (1, 1))]


@pytest.mark.parametrize("fields", [{}, {"pooling": "avg", "position_mode": "keep"}, {"edge": "floor"}])
@pytest.mark.parametrize("route", ROUTES)
@torch.no_grad()
def test_it_equals_dpn_on_the_same_route_bit_for_bit(samples, route, fields):
    samples = [*samples, make_sample(2, [(1, 3), (3, 5)], 4, seed=5)]  # floor leaves nothing of the first
    static = make_model(StaticPoolConfig(layers=(1, 2, 4), kernels=route, **fields))
    routed = make_model(make_config(eval_choice="static", route=route, **fields))
    routed.load_state_dict(static.state_dict(), strict=False)
    batch = make_batch(samples, "left")
    caches = DynamicCache(), DynamicCache()
    one, other = (
        model(**batch, past_key_values=c) for model, c in zip((static, routed), caches, strict=True)
    )
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)
    assert lengths(caches[0]) == lengths(caches[1])
    for row in range(len(samples)):
        assert one.routing.route_names(row) == other.routing.route_names(row)


@torch.no_grad()
def test_the_largest_of_every_window_goes_on():
    model = make_model(StaticPoolConfig(layers=(1, 2), kernels=((2, 2), (1, 1))))
    types, embeds, grids = make_sample(1, [(2, 4)], 2)
    seen = []
    model.layers[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    first = []
    model.layers[0].register_forward_hook(lambda _, __, output: first.append(output))
    model(**make_batch([(types, embeds, grids)]))
    before, after = first[0][0], seen[0][0]
    assert len(after) == 1 + 2 + 2
    torch.testing.assert_close(after[1], before[[1, 2, 5, 6]].amax(0))
    torch.testing.assert_close(after[2], before[[3, 4, 7, 8]].amax(0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernels": ((2, 2),)}, r"kernels needs one value for each of the 3 layers \(8, 16, 24\)"),
        ({"kernels": ((2, 2), (0, 1), (2, 2))}, "at least one row and one column"),
        ({"layers": (0, 8, 16)}, r"layers must increase and start at 1 or later, got \(0, 8, 16\)"),
        ({"pooling": "median"}, "pooling must be one of max, avg, got 'median'"),
        ({"edge": "round"}, "edge must be one of ceil, floor"),
        ({"position_mode": "shift"}, "position_mode must be one of renumber, keep"),
    ],
)
def test_what_can_not_work_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        StaticPoolConfig.from_fields(**fields)


def test_an_image_without_a_full_grid_is_never_pooled():
    types, embeds, grids = make_sample(2, [GRID], 3, seed=1)
    cut = ([*types[:10], *types[18:]], torch.cat([embeds[:10], embeds[18:]]), grids)
    output = make_model(StaticPoolConfig(layers=(1,), kernels=((2, 2),)))(**make_batch([cut]))
    assert output.layout.lengths == (len(cut[0]),)
    assert output.routing.route_names(0) == ("1x1",)
