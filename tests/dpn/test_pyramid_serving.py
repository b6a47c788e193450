"""What stands around the decoder: compilation, placement on devices, masks and caches that don't fit."""

import shutil

import pytest
import torch
from torch._dynamo.utils import counters
from transformers.cache_utils import DynamicCache

from dpn.cache import lengths
from tests.dpn.pyramids import GRID, make_batch, make_config, make_model, make_sample

NEEDS_CXX = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="inductor needs a C++ compiler on a CPU"
)
SAMPLES = [make_sample(3, [GRID], 4, seed=1), make_sample(1, [GRID, GRID], 2, seed=2)]


def prefilled(model, routes, side="left"):
    """A cache behind SAMPLES, and the mask that covers it."""
    batch, cache = make_batch(SAMPLES, side), DynamicCache()
    with torch.no_grad():
        model(**batch, routes=torch.tensor(routes), past_key_values=cache)
    return cache, batch["attention_mask"]


def steps(forward, cache, mask, count, seed=3):
    """Decode; gives the states (B, count, D)."""
    new = torch.randn(2, count, 32, generator=torch.Generator().manual_seed(seed))
    states = []
    with torch.no_grad():
        for step in range(count):
            mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
            output = forward(
                inputs_embeds=new[:, step : step + 1], attention_mask=mask, past_key_values=cache
            )
            states.append(output.last_hidden_state)
    return torch.cat(states, dim=1)


@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=[pytest.mark.slow, NEEDS_CXX])])
def test_compiled_decoding_needs_no_graph_of_its_own_for_every_step(backend):
    """One graph for the step right behind the prefill, one for all later ones."""
    torch._dynamo.reset()
    model = make_model(make_config(layers=(1,)), num_hidden_layers=2)
    compiled, graphs = torch.compile(model, backend=backend, dynamic=True), []

    def counted(**given):
        output = compiled(**given)
        graphs.append(counters["stats"]["unique_graphs"])
        return output

    start, routes = counters["stats"]["unique_graphs"], [[1], [2]]
    states = steps(counted, *prefilled(model, routes), 6)
    assert start < graphs[0] <= graphs[1] <= start + 2
    assert graphs[1:] == [graphs[1]] * 5
    expected = steps(model, *prefilled(model, routes), 6)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("routers", ["cpu", "disk"])
def test_layers_and_routers_on_different_devices_give_the_same_states_bit_for_bit(tmp_path, routers):
    model = make_model(make_config(gate="probability"))
    model.save_pretrained(tmp_path / "model")
    places = {"embed_tokens": "cpu", "rotary_emb": "cpu", "norm": "disk", "reducer": routers}
    places |= {f"layers.{number}": ("cpu", "disk")[number % 2] for number in range(5)}
    spread = type(model).from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=str(tmp_path / "offloaded")
    )
    assert {parameter.device.type for parameter in spread.parameters()} == {"cpu", "meta"}
    states = []
    for each in (model, spread.eval()):
        cache, mask = prefilled(each, [[1, 0, 2], [2, -1, -1]])
        states.append((steps(each, cache, mask, 2), lengths(cache)))
    assert torch.equal(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_without_a_mask_the_padding_of_the_prefill_stays_padding(side):
    model = make_model(make_config())
    routes = [[1, 0, 2], [2, 2, 2]]
    new = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(5))
    outputs = []
    for is_given in (True, False):
        cache, mask = prefilled(model, routes, side)
        full = torch.cat([mask, mask.new_ones(2, 3)], dim=1) if is_given else None
        outputs.append(model(inputs_embeds=new, attention_mask=full, past_key_values=cache).last_hidden_state)
    assert torch.equal(*outputs)


def test_a_mask_that_does_not_cover_the_cache_is_refused():
    model = make_model(make_config())
    cache, mask = prefilled(model, [[0, 0, 0]] * 2)
    with pytest.raises(ValueError, match="attention_mask covers 35 tokens, the cache holds 35 and 1 are new"):
        model(inputs_embeds=torch.zeros(2, 1, 32), attention_mask=mask, past_key_values=cache)


@pytest.mark.parametrize(
    ("fields", "sizes", "message"),
    [
        ({"layers": (1, 3)}, {}, r"pooled in front of the layers \(1, 2, 4\), not \(1, 3\)"),
        ({}, {"num_hidden_layers": 6}, "it has 5 layers, the decoder 6"),
        ({}, {"num_key_value_heads": 4}, r"heads x width are \(2, 8\), not \(4, 8\)"),
        (None, {}, r"pooled in front of the layers \(1, 2, 4\), not \(\)"),
    ],
)
def test_the_cache_of_another_model_is_refused(fields, sizes, message):
    cache, mask = prefilled(make_model(make_config()), [[1, 0, 2], [2, 2, 2]])
    other = make_model(None if fields is None else make_config(**fields), **sizes)
    with pytest.raises(ValueError, match=message):
        steps(other, cache, mask, 1)


def test_the_cache_of_another_checkpoint_of_the_same_sizes_is_refused():
    cache, mask = prefilled(make_model(make_config()), [[1, 0, 2], [2, 2, 2]])
    with pytest.raises(ValueError, match="another model or batch: another loaded model filled it"):
        steps(make_model(make_config(), seed=1), cache, mask, 1)


def test_a_cache_that_was_reset_belongs_to_nobody():
    cache, _ = prefilled(make_model(make_config()), [[1, 0, 2], [2, 2, 2]])
    cache.reset()
    other, ids = make_model(make_config(), seed=1), torch.arange(1, 13).reshape(2, 6)
    other(input_ids=ids, past_key_values=cache)
    expected = other(input_ids=torch.cat([ids, ids[:, :1]], dim=1)).last_hidden_state[:, -1]
    later = other(input_ids=ids[:, :1], past_key_values=cache).last_hidden_state[:, 0]
    assert torch.allclose(later, expected, atol=1e-5)


@pytest.mark.parametrize("make_cache", [lambda: None, DynamicCache])
def test_text_alone_runs_as_on_a_plain_decoder_with_any_empty_cache(make_cache):
    model, ids = make_model(make_config()), torch.arange(1, 13).reshape(2, 6)
    plain = make_model()
    plain.load_state_dict(model.state_dict(), strict=False)
    output = model(input_ids=ids, past_key_values=make_cache())
    assert torch.allclose(output.last_hidden_state, plain(input_ids=ids).last_hidden_state, atol=1e-6)
    assert lengths(output.past_key_values) == [6] * 5
    later = model(input_ids=ids[:, :1], past_key_values=output.past_key_values).last_hidden_state
    whole = plain(input_ids=torch.cat([ids, ids[:, :1]], dim=1)).last_hidden_state
    assert torch.allclose(later[:, 0], whole[:, -1], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"attention_mask": torch.ones(2, 20)},
            r"attention_mask must have the prompts' shape .*, got \(2, 20\)",
        ),
        (
            {"mm_token_type_ids": torch.zeros(2, 20)},
            r"mm_token_type_ids describe \(2, 20\) tokens, the prompts",
        ),
        ({"visual_grids": torch.ones(1, 2, 2)}, r"visual_grids must be \(B, I, 2\).*, got \(1, 2, 2\)"),
        ({"visual_grids": torch.ones(2, 2)}, r"visual_grids must be \(B, I, 2\).*, got \(2, 2\)"),
        ({"router_shift": torch.ones(3)}, r"router_shift must be a tensor of \(2,\) floats, .* got \(3,\)"),
        ({"router_shift": 1.0}, r"router_shift must be a tensor of \(2,\) floats, one per sample; got 1.0"),
        ({"budget": 0.4}, r"budget=0.4 is an argument of generate\(\)"),
    ],
)
def test_arguments_that_do_not_fit_the_prompts_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        make_model(make_config())(**{**make_batch(SAMPLES), **changes})


def test_routes_for_a_plain_decoder_are_refused():
    with pytest.raises(ValueError, match="has no reduction that could take them"):
        make_model()(**make_batch(SAMPLES), routes=torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize("name", ["output_hidden_states", "output_attentions"])
def test_states_and_weights_of_the_layers_are_refused_by_name_in_prefill_and_decoding(name):
    model = make_model(make_config())
    cache, _ = prefilled(model, [[1, 0, 2], [2, 2, 2]])
    with pytest.raises(ValueError, match=f"{name}=True isn't served with a reduction"):
        model(**make_batch(SAMPLES), **{name: True})
    with pytest.raises(ValueError, match=f"{name}=True isn't served with a reduction"):
        model(inputs_embeds=torch.zeros(2, 1, 32), past_key_values=cache, **{name: True})
