"""One softmax row per sample, made beside whatever kernel a layer uses, is the layer's own eager row."""

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from dpn.attention import Packing
from dpn.layout import Layout
from dpn.tap import AttentionTap
from tests.dpn.pyramids import GRID, make_batch, make_config, make_model, make_sample

SAMPLES = [
    make_sample(3, [GRID], 4, tail=3, seed=1),
    make_sample(6, [], 3, seed=2),
    make_sample(2, [GRID, GRID], 5, tail=1, seed=3),
]


def read(samples, side="right"):
    batch = make_batch(samples, side)
    return Layout.from_padded(batch["mm_token_type_ids"], batch["attention_mask"], batch["visual_grids"])


def eager_row(layer, model, embeds, row):
    """The weights (n,) of one row in transformers' own eager attention over one sample (n, D)."""
    layer.self_attn.config._attn_implementation = "eager"
    length = len(embeds)
    rotary = model.rotary_emb(embeds[None], position_ids=torch.arange(length)[None])
    mask = torch.full((1, 1, length, length), float("-inf")).triu(1)
    _, weights = layer.self_attn(
        layer.input_layernorm(embeds[None]), position_embeddings=rotary, attention_mask=mask
    )
    return weights[0, :, row].mean(0)


@pytest.mark.parametrize("implementation", ["packed", "sdpa", "eager"])
@pytest.mark.parametrize("heads", [2, 4])
@torch.no_grad()
def test_the_tap_holds_the_eager_weights_of_every_samples_last_prompt_token(implementation, heads):
    model = make_model(make_config(), num_key_value_heads=heads)
    model.set_attn_implementation(implementation)
    layout, tap = read(SAMPLES), AttentionTap(read(SAMPLES))
    hidden = torch.cat([embeds for _, embeds, _ in SAMPLES])  # (N, D)
    positions = torch.from_numpy(layout.positions("renumber"))
    model.layers[1](
        hidden[None],
        position_embeddings=model.rotary_emb(hidden[None], position_ids=positions[None]),
        attention_mask=None,
        packing=Packing.of(layout, hidden.device),
        tap=tap,
    )
    plain = LlamaDecoderLayer(make_model(num_key_value_heads=heads).config, 1)
    plain.load_state_dict(model.layers[1].state_dict())
    assert tap.weights.dtype == torch.float32
    for weights, (_, embeds, _), start, last in zip(
        tap.weights.split(layout.lengths), SAMPLES, layout.starts, layout.last_rows, strict=False
    ):
        expected = eager_row(plain, model, embeds, last - start)
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=0)
        assert weights[: last - start + 1].std() > 1e-3
        assert not weights[last - start + 1 :].any()


def test_rows_behind_the_last_prompt_token_take_no_part():
    layout = read([make_sample(1, [(1, 2)], 2, tail=2)])
    tap = AttentionTap(layout)
    tap.fill(torch.ones(1, 2, 7, 4), torch.ones(1, 1, 7, 4), 0.5)
    torch.testing.assert_close(tap.weights, torch.tensor([0.2] * 5 + [0.0] * 2))


def test_half_precision_does_not_tie_the_scores():
    layout = read([make_sample(1, [(4, 4)], 2)])
    torch.manual_seed(0)
    query = torch.randn(1, 2, 19, 64, dtype=torch.bfloat16)
    key = query[:, :1] + 1e-2 * torch.randn(1, 1, 19, 64, dtype=torch.bfloat16)
    tap = AttentionTap(layout)
    tap.fill(query, key, 0.01)
    assert len(tap.weights.unique()) == 19


def test_a_layer_that_runs_again_changes_nothing():
    tap = AttentionTap(read([make_sample(1, [(1, 2)], 2)]))
    tap.fill(torch.ones(1, 2, 5, 4), torch.ones(1, 1, 5, 4), 0.5)
    first = tap.weights
    tap.fill(torch.zeros(1, 2, 5, 4), torch.ones(1, 1, 5, 4), 0.5)
    assert tap.weights is first
