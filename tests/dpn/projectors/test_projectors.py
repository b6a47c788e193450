"""What every projector must do: shapes as promised, a crop's tokens from that crop alone, all learns."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dpn.projectors.build import PROJECTORS
from tests.dpn.projectors.cases import OPTIONS, TOWER, WIDTH, build, features_for

NAMES = list(PROJECTORS)
WITH_GRID = [name for name in NAMES if name != "resampler"]


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_as_many_as_promised(name):
    projector = build(name)
    tokens = projector(features_for(projector))
    assert tokens.shape == (3, projector.num_tokens, WIDTH) == (3, 4, WIDTH)
    assert projector.grid((4, 4)) == (None if name == "resampler" else (2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_llavas_576_features_become_144_tokens(name):
    config = PROJECTORS[name].config_class()
    assert config.num_tokens((24, 24)) == 144
    assert config.grid((24, 24)) == (None if name == "resampler" else (12, 12))


@pytest.mark.parametrize("name", WITH_GRID)
def test_the_scale_and_a_grid_that_is_no_square_are_kept(name):
    projector = build(name, tower=replace(TOWER, grid=(3, 6)), scale=3)
    assert projector.grid((3, 6)) == (1, 2)
    assert projector(features_for(projector)).shape == (3, 2, WIDTH)
    assert build(name, scale=1).num_tokens == 16


@pytest.mark.parametrize("name", WITH_GRID)
def test_a_scale_that_does_not_divide_the_grid_is_refused(name):
    with pytest.raises(
        ValueError, match="scale=3 does not divide the 4x4 grid of the vision tower's features"
    ):
        build(name, scale=3)
    with pytest.raises(ValueError, match="scale must be 1 or more, got 0"):
        build(name, scale=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_its_crops_give_alone(name):
    projector = build(name)
    features = features_for(projector)
    together = projector(features)
    for index in range(3):
        alone = projector([level[index : index + 1] for level in features])
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-5, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_every_feature_gets_a_gradient(name):
    projector = build(name, tower=replace(TOWER, width=32))  # some units of its ReLU are alive
    features = [level.requires_grad_() for level in features_for(projector)]
    projector(features).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in projector.parameters())
    assert all((level.grad.abs().sum(-1) > 0).all() for level in features)


@pytest.mark.parametrize("name", NAMES)
def test_no_projector_holds_a_buffer(name):
    assert not list(build(name).buffers())  # which loading would leave as whatever the memory held


@pytest.mark.parametrize("name", NAMES)
def test_what_a_projector_holds_itself_it_initialises_itself(name):
    projector = build(name)
    layers = (nn.Linear, nn.Conv2d, nn.LayerNorm)
    own = [
        (module, parameter)
        for module in projector.modules()
        if not isinstance(module, layers)
        for parameter in module.parameters(recurse=False)
    ]
    with torch.no_grad():
        for _, parameter in own:
            parameter.fill_(torch.nan)
    for module in projector.modules():
        projector.init_weights(module)
    assert all(torch.isfinite(parameter).all() for _, parameter in own)
    assert (len(own) > 0) == (name == "resampler")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_nearly_the_same_tokens(name, dtype):
    projector = build(name)
    features = features_for(projector)
    whole = projector(features)
    half = projector.to(dtype)([level.to(dtype) for level in features])
    assert half.dtype == dtype
    error = (half.float() - whole).norm() / whole.norm()
    assert error < (0.02 if dtype == torch.bfloat16 else 0.005)


@pytest.mark.parametrize("name", NAMES)
def test_a_projector_is_built_without_storage(name):
    with torch.device("meta"):
        config = PROJECTORS[name].config_class(**OPTIONS[name])
        projector = PROJECTORS[name](config, TOWER, WIDTH)
        features = [torch.empty(2, 16, TOWER.width) for _ in projector.feature_layers]
        assert projector(features).shape == (2, 4, WIDTH)
