"""The paper's own numbers, and both countings side by side."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dpn.flops import DecoderShape, count_flops, count_full_flops, visual_cost
from tests.dpn.pyramids import make_batch, make_config, make_model, make_sample

SEVEN = {"hidden_size": 4096, "intermediate_size": 11008}
THIRTEEN = {"hidden_size": 5120, "intermediate_size": 13824}


@pytest.mark.parametrize(
    ("tokens", "layers", "sizes", "gflops"),
    [(576, 32, SEVEN, 2986.08), (1024, 32, SEVEN, 5428.84), (1024, 40, THIRTEEN, 10522.67)],
)
def test_eq_8_gives_the_dense_rows_of_table_1(tokens, layers, sizes, gflops):
    assert round(count_flops([tokens] * layers, **sizes) / 1e9, 2) == gflops


def test_sizes_of_any_whole_number_are_counted_exactly():
    expected = count_flops([576] * 3, **SEVEN)
    assert expected == 3 * (4 * 576 * 4096**2 + 2 * 576**2 * 4096 + 2 * 576 * 4096 * 11008)
    for kind in (np.int16, np.int32, np.uint16, float, np.float32):
        sizes = {name: kind(size) for name, size in SEVEN.items()}
        found = count_flops(np.array([576] * 3, dtype=kind), **sizes, ffn_matrices=kind(2))
        assert (type(found), found) == (int, expected)
    assert count_flops([10**200], hidden_size=1, intermediate_size=0) == 4 * 10**200 + 2 * 10**400
    assert count_flops(torch.tensor([576] * 3), **SEVEN) == expected


def test_fractional_tokens_are_counted_as_they_are():
    assert count_flops([2.5], hidden_size=4, intermediate_size=8) == 4 * 40 + 2 * 25 + 2 * 80
    assert count_flops([], **SEVEN) == count_flops([0], **SEVEN) == 0


@pytest.mark.parametrize(
    "bad", [-1, -0.5, float("nan"), float("inf"), True, np.bool_(True), torch.tensor(True), "576", None, 1j]
)
@pytest.mark.parametrize("field", ["tokens_per_layer", "hidden_size", "intermediate_size", "ffn_matrices"])
def test_what_is_no_amount_is_refused_with_its_field_and_value(field, bad):
    given = {"tokens_per_layer": [576], **SEVEN, "ffn_matrices": 2}
    given[field] = [576, bad] if field == "tokens_per_layer" else bad
    with pytest.raises(ValueError, match=f"^{field} must be finite and 0 or more, got ") as caught:
        count_flops(given.pop("tokens_per_layer"), **given)
    assert str(caught.value).endswith(repr(bad))


@pytest.mark.parametrize("field", ["hidden_size", "intermediate_size", "ffn_matrices"])
def test_a_size_with_a_fraction_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} must be a whole number, got 4.5"):
        count_flops([576], **{**SEVEN, "ffn_matrices": 2, field: 4.5})


def test_the_floor_of_three_times_2x2_is_33_percent_in_the_papers_counting():
    route = [576] * 8 + [144] * 8 + [36] * 8 + [9] * 8
    assert count_flops(route, **SEVEN) / count_flops([576] * 32, **SEVEN) == pytest.approx(0.330, abs=5e-4)
    cost = visual_cost(np.array([route, [576] * 32, [0] * 32]), **SEVEN)
    assert cost == pytest.approx([0.330, 1.0, 1.0], abs=5e-4)


def test_the_same_route_with_64_text_tokens_costs_39_7_percent_in_full():
    shape = DecoderShape(**SEVEN, num_attention_heads=32, num_key_value_heads=32)
    route = [tokens + 64 for tokens in [576] * 8 + [144] * 8 + [36] * 8 + [9] * 8]
    assert count_full_flops(route, shape) / count_full_flops([640] * 32, shape) == pytest.approx(
        0.397, abs=2e-3
    )


def test_the_full_counting_equals_torchs_flop_counter_on_our_own_decoder():
    model = make_model(make_config())
    batch = make_batch([make_sample(3, [(4, 4)], 4)])
    # the counter doesn't know the CPU's fused attention; the plain one has the same products
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(**batch, routes=torch.tensor([[2, 0, 1]]), use_cache=False)
    config = model.config
    shape = DecoderShape(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        num_routers=3,
    )
    counted = count_full_flops([23, 11, 11, 11, 9], shape)
    assert counter.get_total_flops() / 2 == pytest.approx(counted, rel=1e-3)  # rotary angles, in 5.17
