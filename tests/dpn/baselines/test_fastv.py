"""FastV drops what the last prompt token attends to least in the layer in front, and nothing else."""

import pytest
import torch

from dpn.baselines.fastv import FastV, FastVConfig
from dpn.layout import Layout
from dpn.reducer import Boundary
from dpn.spans import LAST, VISUAL
from tests.dpn.pyramids import GRID, make_batch, make_model, make_sample

IMAGE = VISUAL


def test_the_best_half_by_attention_stays():
    layout = Layout.from_padded(
        torch.tensor([[0, IMAGE, IMAGE, IMAGE, IMAGE, 0, LAST]]), None, torch.tensor([[[2, 2]]])
    )
    attention = torch.tensor([0.4, 0.05, 0.2, 0.1, 0.05, 0.1, 0.1])
    reducer = FastV(FastVConfig(layer=1, ratio=0.5))
    hidden = torch.arange(7.0)[:, None]
    kept, after = reducer(0, hidden, layout, reducer.new_routing(layout), Boundary(None, None, attention))
    assert kept.flatten().tolist() == [0, 2, 3, 5, 6]
    assert after.device_positions("keep", kept.device).tolist() == [0, 2, 3, 5, 6]
    assert after.device_positions("renumber", kept.device).tolist() == [0, 1, 2, 3, 4]


@torch.no_grad()
def test_the_ranking_is_that_of_layer_k_minus_1_and_positions_stay():
    """Recomputed step by step with the same layers: eager weights, topk, and layers on what is left."""
    model = make_model(FastVConfig(layer=2, ratio=0.6))
    types, embeds, grids = make_sample(3, [GRID], 4, tail=2, seed=6)
    output = model(**make_batch([(types, embeds, grids)]))

    slow = make_model(num_hidden_layers=5, attn_implementation="eager")
    slow.load_state_dict(model.state_dict())
    hidden, positions, length = embeds[None], torch.arange(len(types)), len(types)
    for number, layer in enumerate(slow.layers):
        mask = torch.full((1, 1, length, length), float("-inf")).triu(1)
        rotary = slow.rotary_emb(hidden, position_ids=positions[None])
        _, weights = layer.self_attn(
            layer.input_layernorm(hidden), position_embeddings=rotary, attention_mask=mask
        )
        hidden = layer(hidden, position_embeddings=rotary, attention_mask=mask)
        if number == 1:
            best = weights[0, :, types.index(LAST), 3:19].mean(0).topk(6).indices.sort().values
            kept = torch.cat([torch.arange(3), 3 + best, torch.arange(19, length)])
            hidden, positions, length = hidden[:, kept], positions[kept], len(kept)
    torch.testing.assert_close(output.last_hidden_state, slow.norm(hidden), atol=2e-5, rtol=1e-5)
    assert output.layout.chosen_origin.tolist() == kept.tolist()
    assert best.tolist() != list(range(6))


def test_without_a_ratio_no_layer_is_asked_for_its_attention():
    assert not FastV(FastVConfig(ratio=0.0)).needs_attention
    assert FastV(FastVConfig()).needs_attention


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer": 0}, r"layers must increase and start at 1 or later, got \(0,\)"),
        ({"ratio": 1.0}, "ratio is the share of the tokens that goes, from 0 to below 1, got 1.0"),
        ({"ratio": -0.1}, "from 0 to below 1, got -0.1"),
        ({"ratio": float("nan")}, "got nan"),
        ({"position_mode": "drop"}, "position_mode must be one of renumber, keep, got 'drop'"),
    ],
)
def test_what_can_not_work_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        FastVConfig.from_fields(**fields)
