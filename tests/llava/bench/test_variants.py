"""What is compared is the same model, on the routes it is named after."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llava.bench.arguments import parse
from llava.bench.costs import cache_bytes, expected_cache_bytes, flops_shares, tokens_of_layers
from llava.bench.inputs import make_batch
from llava.bench.variants import check_routes, make_variants


def batch_of(tiny, size, **options):
    arguments, variants = tiny
    model = variants["dense"].ours
    return make_batch(model, arguments.shape, size=size, seed=0, **{"has_tower": False, **options})


@torch.no_grad()
def prefill(variant, batch):
    return variant.model(**variant.inputs(batch), use_cache=True, logits_to_keep=1)


def test_all_variants_hold_the_same_tensors(tiny):
    _, variants = tiny
    name = "model.layers.1.mlp.up_proj.weight"
    theirs = name.replace("model.", "model.language_model.", 1)
    expected = variants["transformers"].model.get_parameter(theirs)
    for variant in variants.values():
        if variant.kind != "transformers":
            assert variant.ours.get_parameter(name).data_ptr() == expected.data_ptr()


def test_dense_predicts_what_transformers_predicts_bit_for_bit(tiny):
    _, variants = tiny
    batch = batch_of(tiny, 3)
    logits = [prefill(variants[name], batch).logits for name in ("dense", "transformers")]
    assert torch.equal(*logits)


def test_with_the_tower_dense_still_predicts_what_transformers_predicts():
    _, arguments = parse(["prefill", "--preset", "tiny", "--tower", "True", "--variants", "transformers"])
    variants = {variant.name: variant for variant in make_variants(arguments, arguments.shape, "prefill")}
    batch = make_batch(variants["dense"].ours, arguments.shape, size=2, seed=0, has_tower=True)
    dense, reference = (prefill(variants[name], batch).logits for name in ("dense", "transformers"))
    assert torch.allclose(dense, reference, atol=1e-6)
    other = make_batch(variants["dense"].ours, arguments.shape, size=2, seed=1, has_tower=True)
    changed = batch.ours | {"images": other.ours["images"]}
    assert not torch.allclose(variants["dense"].ours(**changed, logits_to_keep=1).logits, dense, atol=1e-6)


@pytest.mark.parametrize("name", ["identity", "2x2,1x2,1x1", "mixed"])
def test_the_routers_themselves_choose_the_routes_of_a_variant(tiny, name):
    _, variants = tiny
    batch = batch_of(tiny, 8)
    routes = variants[name].teach(batch, seed=0)
    chosen = np.stack(prefill(variants[name], batch).routing.choices, axis=1).tolist()
    assert chosen == routes


def test_mixed_routes_differ_from_sample_to_sample(tiny):
    _, variants = tiny
    assert len(set(map(tuple, variants["mixed"].routes(16, seed=0)))) == 16


def test_a_run_on_other_routes_is_refused(tiny):
    _, variants = tiny
    batch = batch_of(tiny, 2)
    variant = variants["identity"]
    variant.teach(batch, seed=0)
    routing = prefill(variant, batch).routing
    check_routes(variant, routing, [[0, 0, 0]] * 2)
    with pytest.raises(ValueError, match=r"identity: the routers .* for sample 1 instead of \[2, 0, 0\]"):
        check_routes(variant, routing, [[0, 0, 0], [2, 0, 0]])


def test_a_route_of_the_wrong_length_is_refused():
    _, arguments = parse(["prefill", "--preset", "tiny", "--routes", "2x2,1x1"])
    with pytest.raises(ValueError, match=r"one kernel per DPE \(3\), got '2x2,1x1'"):
        make_variants(arguments, arguments.shape, "prefill")


def test_the_flops_share_is_what_torch_counts(tiny):
    arguments, variants = tiny
    batch = batch_of(tiny, 1)
    counted = {}
    for name in ("dense", "2x2,1x2,1x1"):
        variants[name].teach(batch, seed=0)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            output = variants[name].ours.model(**batch.merged, use_cache=False)
        counted[name] = counter.get_total_flops()
    share = flops_shares(output.routing, variants["2x2,1x2,1x1"].ours.config, arguments.shape, 1)["full"]
    assert share == pytest.approx(counted["2x2,1x2,1x1"] / counted["dense"], rel=1e-3)
    assert share < 0.7


def test_cache_bytes_are_those_of_the_longest_sample_in_every_layer(tiny):
    arguments, variants = tiny
    batch = batch_of(tiny, 4)
    variants["mixed"].teach(batch, seed=0)
    output = prefill(variants["mixed"], batch)
    tokens = tokens_of_layers(output.routing, arguments.shape, 4)
    expected = expected_cache_bytes(tokens, arguments.shape, 4)
    by_hand = sum(4 * column.max() * 2 * 2 * 16 * 4 for column in tokens.T)  # B x P x K/V x G x C x float32
    assert cache_bytes(output.past_key_values) == expected["cells"] == by_hand
    assert expected["tokens"] < expected["cells"]
