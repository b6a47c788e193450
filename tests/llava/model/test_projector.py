"""Projectors that leave fewer tokens, inside the whole model: batches, generation, and what they cost."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from llava.model.reduction import expert_indices
from llava.model.report import SampleReport, flops_ratios
from tests.llava.model.prompts import PROMPTS, alone, make_batch, make_images
from tests.llava.model.shrinking import NAMES, WITH_GRID, asked

DPN = ("dpn", "layers=1,3", "min_tokens=0", "skip_below=0")
GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


def generate(model, batch, **options):
    inputs = {name: batch[name] for name in ("attention_mask", "images")}
    return model.generate_with_report(batch["input_ids"], **inputs, **GREEDY, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_ragged_batch_answers_as_each_prompt_alone(tiny_llava, name):
    model = tiny_llava(**asked(name))[1].eval()
    ids, reports = generate(model, make_batch())
    assert len({tuple(row) for row in ids.tolist()}) == len(PROMPTS)
    assert [report.visual_tokens_per_layer[0] for report in reports] == [4, 4, 0, 8]
    for row in range(len(PROMPTS)):
        single, _ = generate(model, alone(row))
        assert ids[row].tolist() == single[0].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_changes_what_is_predicted_and_no_other_row_does(tiny_llava, name):
    model = tiny_llava(**asked(name))[1].eval()
    batch = make_batch()
    before = model(**batch).logits
    batch["images"] = torch.cat([make_images(1, seed=9), batch["images"][1:]])
    after = model(**batch).logits
    assert (after[0, -1] - before[0, -1]).abs().max() > 0.01
    torch.testing.assert_close(after[1:], before[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_projector_learns_beside_rows_of_text(tiny_llava, name):
    model = tiny_llava(**asked(name))[1].train()
    model(**make_batch(side="right", answers=2)).loss.backward()
    grads = {key: value.grad for key, value in model.model.mm_projector.named_parameters()}
    without = [key for key, grad in grads.items() if grad is None or not grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name", WITH_GRID)
def test_a_pyramid_pools_the_projectors_grid(tiny_llava, name):
    model = tiny_llava(*DPN, **asked(name))[1].eval()
    routes = expert_indices([["1x2", "2x2"]] * 4, ((1, 1), (1, 2), (2, 2)))
    batch = make_batch()
    ids, reports = generate(model, batch, routes=routes)
    assert [report.visual_tokens_per_layer for report in reports] == [
        (4, 2, 2, 1),  # 2x2, then 2x1, then one token
        (4, 2, 2, 1),
        (0, 0, 0, 0),
        (8, 4, 4, 2),
    ]
    for row in range(len(PROMPTS)):
        single, _ = generate(model, alone(row), routes=routes[row : row + 1])
        assert ids[row].tolist() == single[0].tolist()


def test_a_pyramid_needs_a_grid_and_kernels_that_divide_it(tiny_llava):
    with pytest.raises(ValueError, match="those of mm_projector_type=resampler form none"):
        tiny_llava(*DPN, **asked("resampler"))
    with pytest.raises(ValueError, match="kernel 4x4 does not divide the 2x2 grid of visual tokens"):
        tiny_llava(*DPN, "kernels=1x1,4x4", **asked("average_pool"))


def test_the_tower_gives_the_levels_that_are_asked_for_and_changes_nothing_else(tiny_llava):
    model = tiny_llava(**asked("token_packer"))[1].eval()
    tower, pixels = model.get_vision_tower(), make_images(2)
    plain = tower(pixels)
    states = tower.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert model.model.mm_projector.feature_layers == (2, 1, 2)  # layer -2 of 3, then two levels of it
    for layer, level in zip((2, 1, 2), tower(pixels, (2, 1, 2)), strict=True):
        assert torch.equal(level, states[layer][:, 1:])
    assert torch.equal(tower(pixels, (-2,))[0], plain)
    assert torch.equal(tower(pixels), plain)


def test_every_level_of_an_unfrozen_tower_learns(tiny_llava):
    model = tiny_llava(**asked("token_packer", layers=[0, 3]))[1].train()
    tower = model.get_vision_tower().requires_grad_(True)
    model(**make_batch(side="right", answers=2)).loss.backward()
    layers = tower.vision_tower.get_submodule("encoder.layers")
    assert all(any(item.grad is not None for item in layer.parameters()) for layer in layers)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_what_a_base_lacks_is_initialised_as_the_rest_of_the_model(tiny_llava, name):
    projector = tiny_llava(**asked(name))[1].model.mm_projector
    for module in projector.modules():
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, nn.Linear | nn.Conv2d):
            if module.weight.numel() >= 512:
                assert float(module.weight.std()) == pytest.approx(
                    0.2, rel=0.15
                )  # the base's initializer_range
            assert abs(float(module.weight.mean())) < 0.1
            assert module.bias is None or (module.bias == 0).all()
        else:
            for own in module.parameters(recurse=False):
                assert name == "resampler"
                assert float(own.std()) == pytest.approx(0.02, rel=0.2)
    assert all(torch.isfinite(parameter).all() for parameter in projector.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_flops_are_relative_to_the_decoder_that_reads_every_feature(tiny_llava, name):
    model = tiny_llava(**asked(name))[1].eval()
    _, reports = generate(model, make_batch())
    plain = tiny_llava()[1].eval()
    _, dense = generate(plain, make_batch())
    for ours, theirs in zip(reports, dense, strict=True):
        assert ours.dense_visual_tokens == theirs.visual_tokens_per_layer[0] == theirs.dense_visual_tokens
        assert flops_ratios(theirs, plain.config) == {"paper": 1.0, "full": 1.0}
        ratios = flops_ratios(ours, model.config)
        has_image = ours.dense_visual_tokens > 0
        assert (ratios["paper"] < 0.25) == (ratios["full"] < 1) == has_image


def test_144_of_576_tokens_cost_a_quarter_of_eq_8():
    config = SimpleNamespace(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        reduction=None,
    )
    sample = SampleReport((), (), (200,) * 32, (144,) * 32, spared=432)
    ratios = flops_ratios(sample, config)
    assert ratios["paper"] == pytest.approx(0.245, abs=5e-4)
    assert 200 / 632 > ratios["full"] > 0.3  # 56 tokens of text are in both


@pytest.mark.parametrize("kind", ["flat", "spatial", "spatial_unpad"])
def test_tiles_are_merged_on_the_projectors_grid_and_counted_on_the_features(tiny_llava, kind):
    settings = {"image_aspect_ratio": "anyres", "mm_patch_merge_type": kind}
    ids = torch.tensor([[1, -200, 45, 46]])
    found = []
    for projector in ({}, asked("average_pool")):
        model = tiny_llava(**settings, **projector)[1].eval()
        model.config.image_grid_pinpoints = [(56, 112), (112, 56), (112, 112)]
        images, sizes = [make_images(3)], [(200, 90)]  # two tiles side by side
        _, (report,) = model.generate_with_report(ids, images=images, image_sizes=sizes, **GREEDY)
        found.append(report)
    plain, pooled = found
    assert pooled.dense_visual_tokens == plain.visual_tokens_per_layer[0]
    counts = {"flat": (48, 12), "spatial": (48, 12), "spatial_unpad": (16 + 4 * 9, 4 + 2 * 5)}
    assert (plain.visual_tokens_per_layer[0], pooled.visual_tokens_per_layer[0]) == counts[kind]
