"""The decoder's claims: plain where nothing is reduced, each sample as if alone, decoding as if
recomputed."""

import itertools

import numpy as np
import pytest
import torch
from transformers import LlamaModel
from transformers.cache_utils import DynamicCache, StaticCache

from dpn.cache import lengths, routing_of
from tests.dpn.pyramids import GRID, NUM_LAYERS, make_batch, make_config, make_model, make_sample

ROUTES = [(0, 0, 0), (1, 0, 2), (2, 2, 0), (2, 1, 0), (0, 0, 2), (2, 2, 2)]


def split(output):
    """Packed states of one output as one tensor per sample."""
    return output.last_hidden_state[0].split(output.layout.lengths)


def force(routes):
    return torch.tensor(routes)


def with_weights_of(model, other):
    missing = other.load_state_dict(model.state_dict(), strict=False)
    assert all(name.startswith("reducer.") for name in missing.missing_keys + missing.unexpected_keys)
    return other


def test_without_a_reducer_it_is_llama_bit_for_bit():
    model = make_model()
    plain = LlamaModel(model.config).eval()
    plain.load_state_dict(model.state_dict())
    ids, mask = torch.randint(1, 60, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    for attention_mask in (None, mask):
        ours = model(input_ids=ids, attention_mask=attention_mask).last_hidden_state
        assert torch.equal(ours, plain(input_ids=ids, attention_mask=attention_mask).last_hidden_state)


@pytest.mark.parametrize("side", ["left", "right"])
def test_identity_routes_equal_plain_llama(samples, side):
    plain = make_model()
    model = with_weights_of(plain, make_model(make_config()))
    batch = make_batch(samples, side)
    dense = plain(
        inputs_embeds=batch["inputs_embeds"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    packed = model(**batch, routes=force([[0, 0, 0]] * 4)).last_hidden_state[0]
    torch.testing.assert_close(packed, dense[batch["attention_mask"].bool()], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fields", [{}, {"preset": "paper"}, {"router_source": "both", "position_mode": "keep"}]
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_ragged_batch_equals_each_sample_alone(samples, side, fields):
    model = make_model(make_config(**fields))
    for routes in (None, force([ROUTES[1], ROUTES[5], ROUTES[3], ROUTES[2]])):
        together = model(**make_batch(samples, side), routes=routes)
        for row, sample in enumerate(samples):
            alone = model(**make_batch([sample]), routes=None if routes is None else routes[row : row + 1])
            torch.testing.assert_close(split(together)[row], alone.last_hidden_state[0], atol=2e-5, rtol=1e-5)
            assert together.routing.route_names(row) == alone.routing.route_names(0)


@pytest.mark.parametrize("mode", ["renumber", "keep"])
@pytest.mark.parametrize("route", list(itertools.product(range(3), repeat=3)))
def test_cached_decoding_equals_recomputing_for_every_route(route, mode):
    model = make_model(make_config(position_mode=mode))
    prompts = [
        make_sample(3, [GRID], 4, seed=1),
        make_sample(1, [GRID], 2, seed=2),
        make_sample(9, [], 2, seed=3),
    ]
    answers = torch.randn(3, 3, 32, generator=torch.Generator().manual_seed(9))
    routes = force([route, route[::-1], route])
    batch, cache = make_batch(prompts, "left"), DynamicCache()
    model(**batch, routes=routes, past_key_values=cache)
    mask = batch["attention_mask"]
    for step in range(3):
        mask = torch.cat([mask, mask.new_ones(3, 1)], dim=1)
        cached = model(inputs_embeds=answers[:, step : step + 1], attention_mask=mask, past_key_values=cache)
        longer = [
            (types + [0] * (step + 1), torch.cat([embeds, answers[row, : step + 1]]), grids)
            for row, (types, embeds, grids) in enumerate(prompts)
        ]
        recomputed = split(model(**make_batch(longer), routes=routes))
        for row in range(3):
            torch.testing.assert_close(
                cached.last_hidden_state[row, 0], recomputed[row][-1], atol=3e-5, rtol=1e-4
            )


def test_the_cache_holds_what_the_route_promises():
    model, cache = make_model(make_config()), DynamicCache()
    sample = make_sample(3, [GRID], 4, seed=1)
    model(**make_batch([sample]), routes=force([[2, 0, 1]]), past_key_values=cache)
    assert lengths(cache) == [23, 11, 11, 11, 9]
    routing = routing_of(cache)
    assert [int(count[0]) for count in routing.visual_counts] == [16, 4, 4, 2]
    assert routing.route_names(0) == ("2x2", "1x1", "1x2")


def test_text_only_prompts_are_left_alone(samples):
    output = make_model(make_config(eval_choice="static", route=((2, 2),) * 3))(**make_batch(samples))
    assert output.routing.route_names(1) == ("1x1", "1x1", "1x1")
    assert output.layout.lengths[1] == 9
    assert output.routing.route_names(0) == ("2x2", "2x2", "2x2")
    assert output.layout.lengths[0] == 3 + 1 + 4


def test_gradients_reach_router_and_every_visual_token(samples):
    model = make_model(make_config(gate="probability", router_source="both")).train()
    batch = make_batch(samples)
    batch["inputs_embeds"].requires_grad_()
    output = model(**batch, routes=force([[1, 1, 0]] * 4))
    output.last_hidden_state.sum().backward()
    gradient = batch["inputs_embeds"].grad
    assert (gradient.abs().sum(-1) > 0)[batch["attention_mask"].bool()].all()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.reducer.routers.parameters())


def test_gradient_checkpointing_changes_nothing(samples):
    results = []
    for checkpointing in (False, True):
        model = make_model(make_config(gate="probability")).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        output = model(**make_batch(samples), routes=force([[1, 2, 0]] * 4))
        output.last_hidden_state.square().sum().backward()
        results.append((output.last_hidden_state.detach(), model.layers[0].mlp.up_proj.weight.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-6, rtol=1e-6)


def test_a_span_cut_by_truncation_is_never_pooled():
    types, embeds, grids = make_sample(2, [GRID], 3, seed=1)
    cut = ([*types[:10], *types[18:]], torch.cat([embeds[:10], embeds[18:]]), grids)
    output = make_model(make_config())(**make_batch([cut]), routes=force([[2, 2, 2]]))
    assert output.layout.lengths == (len(cut[0]),)


def test_a_prompt_without_the_routing_token_is_refused_and_a_cut_training_sample_left_alone():
    model = make_model(make_config(preset="paper", min_tokens=0, skip_below=0))
    batch = make_batch([make_sample(2, [GRID], 3, router_token=False)])
    with pytest.raises(ValueError, match="sample 0 has visual tokens but no routing token"):
        model(**batch)
    assert model.train()(**batch).layout.lengths == (21,)


def test_routes_of_the_wrong_shape_or_for_no_expert_are_refused(samples):
    model, batch = make_model(make_config()), make_batch(samples)
    for routes in (force([[0, 0, 0]]), force([[0, 0]] * 4), force([[0, 0, 3]] * 4)):
        with pytest.raises(ValueError, match="routes must have the shape"):
            model(**batch, routes=routes)


def test_unserved_outputs_and_caches_are_refused_by_name(samples):
    model, batch = make_model(make_config()), make_batch(samples)
    with pytest.raises(ValueError, match="output_hidden_states"):
        model(**batch, output_hidden_states=True)
    with pytest.raises(ValueError, match="StaticLayer"):
        model(**batch, past_key_values=StaticCache(model.config, max_cache_len=64))


def test_a_layer_outside_the_decoder_is_refused():
    with pytest.raises(ValueError, match=f"decoder with {NUM_LAYERS} layers"):
        make_model(make_config(layers=(1, NUM_LAYERS)))


def test_reloading_keeps_every_weight_and_fresh_routers_have_the_released_scale(tmp_path, samples):
    model = make_model(make_config())
    model.save_pretrained(tmp_path)
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    batch = make_batch(samples)
    assert torch.equal(again.eval()(**batch).last_hidden_state, model(**batch).last_hidden_state)

    make_model().save_pretrained(tmp_path / "plain")
    config = make_model(make_config()).config
    fresh, info = type(model).from_pretrained(tmp_path / "plain", config=config, output_loading_info=True)
    assert info["missing_keys"]
    assert all(name.startswith("reducer.") for name in info["missing_keys"])
    bound = 1 / np.sqrt(32)
    weights = fresh.reducer.routers[0].hidden.weight
    assert bound * 0.9 < weights.abs().max() <= bound
    assert float(fresh.reducer.policy.mu) == fresh.reducer.config.mu == 1.0
    assert float(fresh.reducer.policy.loss_window.abs().max()) == 0.0
