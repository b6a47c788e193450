"""Each design on small cases worked out by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from dpn.projectors.base import TowerShape
from dpn.projectors.token_packer import TokenPackerConfig
from tests.dpn.projectors.cases import TOWER, build, features_for


def test_average_pool_takes_the_mean_of_every_square():
    projector = build("average_pool")
    projector.mlp = nn.Identity()
    features = torch.arange(16.0).reshape(1, 16, 1).expand(-1, -1, 8)
    assert projector([features])[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]  # (0 + 1 + 4 + 5) / 4, ...


def test_average_pool_of_equal_features_is_the_plain_mlp():
    projector = build("average_pool")
    feature = torch.randn(8)
    tokens = projector([feature.expand(1, 16, 8)])
    torch.testing.assert_close(tokens, projector.mlp(feature).expand(1, 4, -1))


def test_pixel_shuffle_keeps_every_value_once():
    projector = build("pixel_shuffle")
    features = torch.arange(128.0).reshape(1, 16, 8)
    wide = projector.shuffled(features)
    assert wide.shape == (1, 4, 32)
    assert sorted(wide.flatten().tolist()) == list(range(128))
    assert torch.equal(wide[0, 0].reshape(4, 8), features[0, [0, 1, 4, 5]])
    assert torch.equal(wide[0, 3].reshape(4, 8), features[0, [10, 11, 14, 15]])


def changed_tokens(projector, level, cell):
    """Which tokens change when one cell of one level does."""
    features = features_for(projector, count=1)
    before = projector(features)
    features[level] = features[level].clone()
    features[level][0, cell] += 1
    return (projector(features) - before).abs().amax(-1)[0].nonzero().flatten().tolist()


@pytest.mark.parametrize("level", range(5))
def test_a_packed_token_sees_its_own_square_alone(level):
    projector = build("token_packer")
    squares = {0: [0, 1, 4, 5], 1: [2, 3, 6, 7], 2: [8, 9, 12, 13], 3: [10, 11, 14, 15]}
    for token, cells in squares.items():
        for cell in cells:
            assert changed_tokens(projector, level, cell) == [token]


def test_packing_adds_what_attention_gathers_to_the_downsampled_feature():
    projector = build("token_packer")
    own, *levels = features_for(projector)
    nn.init.zeros_(projector.attention.query.weight)
    nn.init.zeros_(projector.attention.query.bias)  # all keys look alike, so attention is a mean
    fine = torch.cat(levels, -1)
    values = projector.attention.value(projector.value_norm(projector.value(fine)))  # (3, 16, 8)
    expected = []
    for cells in ([0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]):
        point = own[:, cells].mean(1)  # bilinear, halving
        expected.append(projector.mlp(point + projector.attention.out(values[:, cells].mean(1))))
    torch.testing.assert_close(projector([own, *levels]), torch.stack(expected, 1))


def test_packed_levels_are_the_published_ones_and_the_same_shares_of_other_towers():
    tower = TowerShape(width=8, grid=(4, 4), num_layers=24, layer=23)
    assert TokenPackerConfig().feature_layers(tower) == (23, 12, 16, 22, 23)
    shallow = TowerShape(width=8, grid=(4, 4), num_layers=4, layer=3)
    assert TokenPackerConfig().feature_layers(shallow) == (3, 2, 3)
    assert TokenPackerConfig(layers=(-1, 0)).feature_layers(shallow) == (3, 4, 0)


@pytest.mark.parametrize("layers", [(5,), (-6,), (1, 1), (4, -1)])
def test_packed_levels_that_are_not_there_or_doubled_are_refused(layers):
    shallow = TowerShape(width=8, grid=(4, 4), num_layers=4, layer=3)
    with pytest.raises(
        ValueError, match="must name different hidden states of the vision tower, from -5 to 4"
    ):
        TokenPackerConfig(layers=layers).feature_layers(shallow)


def test_ldp_pools_what_the_pointwise_layers_give_and_its_convolution_sees_the_neighbours():
    projector = build("ldp_v2")
    features = features_for(projector)
    pooled = projector.mlp(features[0])[
        :, [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    ].mean(2)
    nn.init.zeros_(projector.position.bias)
    nn.init.zeros_(projector.position.weight)
    torch.testing.assert_close(projector(features), pooled)  # the skip connection alone
    with torch.no_grad():
        projector.position.weight[:, 0, 1, 0] = 1  # reads the neighbour on the left, 0 beyond the border
    left = torch.stack(
        [torch.zeros_like(pooled[:, 0]), pooled[:, 0], torch.zeros_like(pooled[:, 0]), pooled[:, 2]], 1
    )
    torch.testing.assert_close(projector(features), pooled + left)


def test_the_resampler_knows_where_features_lie():
    projector = build("resampler")
    features = features_for(projector, count=1)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    assert (projector([features[0][:, order]]) - projector(features)).abs().max() > 1e-3


def test_resampling_equal_features_gives_them_whatever_the_query():
    projector = build("resampler")
    feature = torch.randn(8)
    value = projector.feature_norm(projector.features(feature))
    seen = projector.attention.out(projector.attention.value(value))
    expected = projector.out(projector.norm(seen))
    torch.testing.assert_close(projector([feature.expand(1, 16, 8)]), expected.expand(1, 4, -1))


def test_more_queries_than_features_are_refused():
    with pytest.raises(ValueError, match="num_queries=17 is more than the vision tower's 4x4 features"):
        build("resampler", num_queries=17)
    with pytest.raises(ValueError, match="num_queries must be 1 or more, got 0"):
        build("resampler", num_queries=0)
    assert build("resampler", num_queries=5).num_tokens == 5


def test_the_abstractor_pools_between_its_blocks():
    projector = build("c_abstractor", depth=1)
    for stage in (projector.before, projector.after):
        nn.init.zeros_(stage[0].residual[-1].weight)
        nn.init.zeros_(stage[0].residual[-1].bias)  # a block is its SiLU alone
    features = features_for(projector)
    squares = functional.silu(features[0])[:, [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]
    expected = projector.mlp(functional.silu(squares.mean(2)))
    torch.testing.assert_close(projector(features), expected)


def test_the_abstractor_has_as_many_blocks_on_either_side_as_asked():
    assert [len(side) for side in (build("c_abstractor").before, build("c_abstractor").after)] == [3, 3]
    assert len(build("c_abstractor", depth=2).after) == 2
    with pytest.raises(ValueError, match="depth must be 1 or more, got 0"):
        build("c_abstractor", depth=0)


def test_the_abstractor_sees_beyond_a_square_and_the_pools_do_not():
    features = torch.zeros(1, 16, TOWER.width)
    other = features.clone()
    other[0, 15] = 1  # the last cell, which lies in the last square

    def first_token_changes(name):
        projector = build(name)
        return not torch.equal(projector([features])[0, 0], projector([other])[0, 0])

    assert first_token_changes("c_abstractor")
    assert first_token_changes("resampler")
    assert not first_token_changes("average_pool")
    assert not first_token_changes("pixel_shuffle")
