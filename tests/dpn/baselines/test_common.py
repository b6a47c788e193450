"""What every method between the decoder's layers must hold, DPN included (dpn/reducer.py).

A new method adds a line to CASES and, where it can keep everything, to KEEPS_ALL.
"""

from types import SimpleNamespace

import pytest
import torch
from transformers.cache_utils import DynamicCache

from dpn.baselines.fastv import FastVConfig
from dpn.baselines.pyramid_drop import PyramidDropConfig
from dpn.baselines.random_drop import RandomDropConfig
from dpn.baselines.static_pool import StaticPoolConfig
from dpn.baselines.truncate import TruncateConfig
from dpn.cache import lengths
from dpn.layout import Layout
from dpn.method import ReducerConfig
from dpn.methods import METHODS, from_dict
from dpn.reducer import Boundary
from tests.dpn.pyramids import GRID, NUM_LAYERS, make_batch, make_config, make_model, make_sample

PLACES = (1, 2, 4)
STATIC = {"eval_choice": "static", "train_choice": "static"}
CASES = {
    "dpn": (make_config(**STATIC, route=((1, 2), (1, 1), (2, 2))), [16, 8, 8, 2]),
    "static": (StaticPoolConfig(layers=PLACES, kernels=((1, 2), (1, 1), (2, 2))), [16, 8, 8, 2]),
    "static, keep": (
        StaticPoolConfig(layers=PLACES, kernels=((2, 2), (1, 2), (2, 1)), position_mode="keep"),
        [16, 4, 2, 1],
    ),
    "fastv": (FastVConfig(layer=2, ratio=0.5), [16, 8]),
    "fastv, renumber": (FastVConfig(layer=1, ratio=0.7, position_mode="renumber"), [16, 4]),
    "pyramid_drop": (PyramidDropConfig(layers=PLACES), [16, 8, 4, 2]),
    "pyramid_drop, attention": (
        PyramidDropConfig(layers=(2, 4), keeps=(0.5, 0.3), score="attention"),
        [16, 8, 2],
    ),
    "pyramid_drop, keep": (PyramidDropConfig(layers=PLACES, position_mode="keep"), [16, 8, 4, 2]),
    "random": (RandomDropConfig(layers=PLACES, keeps=(0.5, 1.0, 0.25)), [16, 8, 8, 2]),
    "random, renumber": (RandomDropConfig(layers=(3,), keeps=(0.4,), position_mode="renumber"), [16, 6]),
    "truncate": (TruncateConfig(layer=3), [16, 0]),
    "truncate, renumber": (TruncateConfig(layer=1, position_mode="renumber"), [16, 0]),
}
"""A configuration, and the visual tokens of an image of 4x4 in every stage."""
KEEPS_ALL = {
    "dpn": make_config(**STATIC, route=((1, 1),) * 3),
    "static": StaticPoolConfig(layers=PLACES, kernels=((1, 1),) * 3),
    "fastv": FastVConfig(layer=2, ratio=0.0),
    "pyramid_drop": PyramidDropConfig(layers=PLACES, keeps=(1.0,) * 3),
    "random": RandomDropConfig(layers=PLACES, keeps=(1.0,) * 3),
}
each_case = pytest.mark.parametrize("name", CASES)
each_side = pytest.mark.parametrize("side", ["left", "right"])


def reduced(name):
    return make_model(CASES[name][0])


def split(output):
    """Packed states of one output as one tensor per sample."""
    return output.last_hidden_state[0].split(output.layout.lengths)


def plain_states(model, batch):
    """States (B, L, D) of a plain decoder with the same weights."""
    plain = make_model()
    plain.load_state_dict(
        {name: value for name, value in model.state_dict().items() if "reducer" not in name}
    )
    return plain(
        inputs_embeds=batch["inputs_embeds"], attention_mask=batch["attention_mask"]
    ).last_hidden_state


def test_every_method_in_the_decoder_is_tested_here():
    acting = {name for name, config in METHODS.items() if issubclass(config, ReducerConfig)}
    assert acting == {config.method for config, _ in CASES.values()}
    assert acting - {"truncate"} == {config.method for config in KEEPS_ALL.values()}


@each_case
def test_a_configuration_survives_config_json(name):
    config, _ = CASES[name]
    assert from_dict(config.to_dict()) == config
    assert config.to_dict()["method"] == config.method


@pytest.mark.parametrize("name", KEEPS_ALL)
@each_side
@torch.no_grad()
def test_keeping_everything_equals_plain_llama(samples, name, side):
    model = make_model(KEEPS_ALL[name])
    batch = make_batch(samples, side)
    dense = plain_states(model, batch)[batch["attention_mask"].bool()]
    torch.testing.assert_close(model(**batch).last_hidden_state[0], dense, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", KEEPS_ALL)
@torch.no_grad()
def test_keeping_everything_of_a_single_sample_equals_plain_llama_bit_for_bit(name):
    model = make_model(KEEPS_ALL[name])
    batch = make_batch([make_sample(3, [GRID], 4, seed=1)])
    cache = DynamicCache()
    output = model(**batch, past_key_values=cache)
    assert torch.equal(output.last_hidden_state, plain_states(model, batch))
    assert lengths(cache) == [23] * NUM_LAYERS


@each_case
@torch.no_grad()
def test_reducing_changes_the_answer(name):
    model = reduced(name)
    batch = make_batch([make_sample(3, [GRID], 4, seed=1)])
    difference = model(**batch).last_hidden_state[0, -1] - plain_states(model, batch)[0, -1]
    assert difference.abs().max() > 1e-2


@each_case
@each_side
@torch.no_grad()
def test_a_ragged_batch_equals_each_sample_alone(samples, name, side):
    model = reduced(name)
    together = model(**make_batch(samples, side))
    for row, sample in enumerate(samples):
        alone = model(**make_batch([sample]))
        torch.testing.assert_close(split(together)[row], alone.last_hidden_state[0], atol=2e-5, rtol=1e-5)
        for stage, counts in enumerate(together.routing.token_counts):
            assert counts[row] == alone.routing.token_counts[stage][0]


@each_case
@torch.no_grad()
def test_text_only_rows_are_left_alone(samples, name):
    model, batch = reduced(name), make_batch(samples)
    output = model(**batch)
    assert [int(counts[1]) for counts in output.routing.token_counts] == [9] * len(CASES[name][1])
    torch.testing.assert_close(split(output)[1], plain_states(model, batch)[1, :9], atol=2e-5, rtol=1e-5)


@each_case
@torch.no_grad()
def test_every_layer_sees_as_many_tokens_as_promised(name):
    config, promised = CASES[name]
    model, cache = make_model(config), DynamicCache()
    output = model(**make_batch([make_sample(3, [GRID], 4, seed=1)]), past_key_values=cache)
    assert [int(counts[0]) for counts in output.routing.visual_counts] == promised
    stages = torch.bucketize(torch.arange(NUM_LAYERS), torch.tensor(config.places), right=True)
    assert lengths(cache) == [7 + promised[stage] for stage in stages]


@each_case
@torch.no_grad()
def test_every_image_of_a_sample_keeps_its_own_share(name):
    _, promised = CASES[name]
    output = reduced(name)(**make_batch([make_sample(2, [GRID, GRID], 5, seed=3)]))
    assert [int(counts[0]) for counts in output.routing.visual_counts] == [2 * count for count in promised]


@each_case
@each_side
@torch.no_grad()
def test_cached_decoding_equals_recomputing(name, side):
    model = reduced(name)
    prompts = [
        make_sample(3, [GRID], 4, seed=1),
        make_sample(1, [GRID, GRID], 2, seed=2),
        make_sample(9, [], 2, seed=3),
    ]
    answers = torch.randn(3, 3, 32, generator=torch.Generator().manual_seed(9))
    batch, cache = make_batch(prompts, side), DynamicCache()
    model(**batch, past_key_values=cache)
    mask = batch["attention_mask"]
    for step in range(3):
        mask = torch.cat([mask, mask.new_ones(3, 1)], dim=1)
        cached = model(inputs_embeds=answers[:, step : step + 1], attention_mask=mask, past_key_values=cache)
        longer = [
            (types + [0] * (step + 1), torch.cat([embeds, answers[row, : step + 1]]), grids)
            for row, (types, embeds, grids) in enumerate(prompts)
        ]
        recomputed = split(model(**make_batch(longer)))
        for row in range(3):
            torch.testing.assert_close(
                cached.last_hidden_state[row, 0], recomputed[row][-1], atol=3e-5, rtol=1e-4
            )


@each_case
@torch.no_grad()
def test_reordering_the_cache_follows_the_beams(name):
    model = reduced(name)
    batch, cache = (
        make_batch([make_sample(3, [GRID], 4, seed=1), make_sample(8, [], 2, seed=2)]),
        DynamicCache(),
    )
    model(**batch, past_key_values=cache)
    new = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(5))
    mask = torch.cat([batch["attention_mask"], torch.ones(2, 1, dtype=torch.long)], dim=1)
    swapped = torch.tensor([1, 0])
    cache.reorder_cache(swapped)
    there = model(inputs_embeds=new[swapped], attention_mask=mask[swapped], past_key_values=cache)
    again = DynamicCache()
    model(**batch, past_key_values=again)
    here = model(inputs_embeds=new, attention_mask=mask, past_key_values=again)
    torch.testing.assert_close(there.last_hidden_state[swapped], here.last_hidden_state, atol=1e-5, rtol=1e-5)


@each_case
def test_gradients_reach_every_token_and_gradient_checkpointing_changes_nothing(samples, name):
    results = []
    for checkpointing in (False, True):
        model = reduced(name).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        batch = make_batch(samples)
        batch["inputs_embeds"].requires_grad_()
        torch.manual_seed(7)
        output = model(**batch)
        output.last_hidden_state.square().sum().backward()
        gradient = batch["inputs_embeds"].grad
        assert (gradient.abs().sum(-1) > 0)[batch["attention_mask"].bool()].all()
        results.append((output.last_hidden_state.detach(), gradient))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=1e-6)


def boundary_of(model, layout, device="cpu"):
    """What the decoder would hand to the reducer's first place, with made-up attention."""
    attention = torch.rand(len(layout.origin), generator=torch.Generator().manual_seed(3)).to(device)
    positions = torch.from_numpy(layout.positions("renumber"))[None]
    rotary = model.rotary_emb(torch.zeros(1, 1, 32), position_ids=positions)
    return Boundary(
        next_layer=model.layers[model.reducer.layers[0]].to(device),
        rotary=tuple(part.to(device) for part in rotary),
        attention=attention if model.reducer.needs_attention else None,
    )


def read(batch):
    return Layout.from_padded(batch["mm_token_type_ids"], batch["attention_mask"], batch["visual_grids"])


@each_case
def test_gradients_behind_a_place_reach_text_and_the_tokens_that_stay(samples, name):
    model = reduced(name)
    layout = read(make_batch(samples))
    hidden = torch.randn(len(layout.origin), 32, requires_grad=True)
    routing = model.reducer.new_routing(layout)
    kept, after = model.reducer(0, hidden, layout, routing, boundary_of(model, layout))
    kept.sum().backward()
    reached = hidden.grad.abs().sum(-1) > 0
    assert reached[~torch.from_numpy(layout.visual_rows())].all()
    visual = after.visual_counts().sum()
    if CASES[name][0].windows:
        assert reached.all()
    else:
        assert reached.sum() == visual + (~layout.visual_rows()).sum()


@each_case
def test_nothing_is_read_from_the_device(samples, name, monkeypatch):
    """The device "meta" knows shapes only: reading from it is an error. (Autocast doesn't know it.)"""
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda _, **named: autocast("cpu", **named))
    if name == "dpn":
        model = make_model(CASES[name][0])
        model.reducer.routers.to("meta")
    else:
        model = reduced(name)
    layout = read(make_batch(samples))
    hidden = torch.zeros(len(layout.origin), 32, device="meta")
    routing = model.reducer.new_routing(layout)
    kept, after = model.reducer(0, hidden, layout, routing, boundary_of(model, layout, "meta"))
    assert kept.shape == (sum(after.lengths), 32)
    assert after.device_positions(model.reducer.config.position_mode, kept.device).shape == kept.shape[:1]


@each_case
def test_every_batch_calls_the_same_modules(name):
    """ZeRO-3 gathers weights by the order of the modules, which must not depend on what a batch holds."""
    model = reduced(name).train()
    calls = []
    for module_name, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, called=module_name: calls[-1].append(called))
    for sample in (make_sample(3, [GRID], 4), make_sample(6, [], 3), make_sample(2, [(1, 1)], 3)):
        calls.append([])
        model(**make_batch([sample]))
    assert calls[0] == calls[1] == calls[2]
    assert "reducer" in calls[0]


@each_case
def test_a_prompt_that_ends_with_an_image_is_answered_from_its_last_token(name):
    types, embeds, grids = make_sample(3, [GRID], 4, seed=1)
    types, embeds = types[:19], embeds[:19]
    types[-1] += 1
    output = reduced(name)(**make_batch([(types, embeds, grids)]))
    assert output.layout.last_rows.tolist() == [output.layout.lengths[0] - 1]
    promised = max(CASES[name][1][-1], 1)
    assert int(output.routing.visual_counts[-1][0]) == promised


@pytest.mark.parametrize("name", [name for name in CASES if name != "dpn"])
def test_routes_and_shifts_are_refused_where_nothing_is_routed(samples, name):
    model, batch = reduced(name), make_batch(samples)
    method = CASES[name][0].method
    for given in ({"routes": torch.zeros(4, 3, dtype=torch.long)}, {"router_shift": torch.zeros(4)}):
        with pytest.raises(ValueError, match=f"--reduction {method} has no routers that could take them"):
            model(**batch, **given)


@each_case
def test_a_place_outside_the_decoder_is_refused(name):
    config, _ = CASES[name]
    field = "layer" if hasattr(config, "layer") else "layers"
    last = (*config.places[:-1], NUM_LAYERS)
    outside = {**config.to_dict(), field: NUM_LAYERS if field == "layer" else last}
    with pytest.raises(ValueError, match=f"decoder with {NUM_LAYERS} layers"):
        make_model(SimpleNamespace(to_dict=lambda: outside))


@each_case
def test_a_checkpoint_reloads_with_its_method(tmp_path, samples, name):
    model, batch = reduced(name), make_batch(samples)
    model.save_pretrained(tmp_path)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert again.reducer.config == CASES[name][0]
    assert torch.equal(again.eval()(**batch).last_hidden_state, model(**batch).last_hidden_state)
