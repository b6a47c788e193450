"""Random drop repeats itself per sample at inference, and never in training."""

import pytest
import torch

from dpn.baselines.random_drop import RandomDropConfig
from tests.dpn.pyramids import GRID, make_batch, make_model, make_sample


def kept(model, samples):
    """Tokens of the padded batch that are left, one list per sample, counted from the sample's first."""
    layout = model(**make_batch(samples)).layout
    parts = torch.from_numpy(layout.origin).split(layout.lengths)
    return [(part - layout.padded_shape[1] * row).tolist() for row, part in enumerate(parts)]


@torch.no_grad()
def test_a_draw_depends_on_the_sample_and_the_seed_alone():
    model = make_model(RandomDropConfig(layers=(1, 3), keeps=(0.5, 0.5)))
    one, two = make_sample(3, [GRID], 4, seed=1), make_sample(2, [GRID, GRID], 5, seed=3)
    together = kept(model, [one, two])
    assert together == [*kept(model, [one]), *kept(model, [two])]
    assert kept(model, [make_sample(3, [GRID], 4, tail=2, seed=8)])[0][:-2] == together[0]
    other = make_model(RandomDropConfig(layers=(1, 3), keeps=(0.5, 0.5), seed=1))
    assert kept(other, [one]) != kept(model, [one])
    assert kept(model, [make_sample(3, [GRID], 5, seed=1)])[0][:7] != together[0][:7]


@torch.no_grad()
def test_every_token_is_kept_as_often_as_promised():
    counts = torch.zeros(16)
    for seed in range(400):
        model_config = RandomDropConfig(layers=(1,), keeps=(0.25,), seed=seed)
        if seed == 0:
            model = make_model(model_config)
        model.reducer.config = model_config
        for token in kept(model, [make_sample(0, [GRID], 3)])[0]:
            if token < 16:
                counts[token] += 1
    assert counts.sum() == 400 * 4
    assert (counts / 400 - 0.25).abs().max() < 0.08


@torch.no_grad()
def test_training_draws_anew_in_every_step_and_repeats_with_the_generator():
    model = make_model(RandomDropConfig(layers=(1,), keeps=(0.5,))).train()
    samples = [make_sample(3, [GRID], 4, seed=1)] * 2
    torch.manual_seed(3)
    first, second = kept(model, samples), kept(model, samples)
    assert first != second
    assert first[0] != first[1]
    torch.manual_seed(3)
    assert kept(model, samples) == first


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        RandomDropConfig(seed=-1)
