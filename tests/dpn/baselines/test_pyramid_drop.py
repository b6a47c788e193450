"""PyramidDrop ranks by the attention that the next layer is about to pay, and renumbers what stays."""

import pytest
import torch

from dpn.baselines.pyramid_drop import PyramidDropConfig
from dpn.spans import LAST
from tests.dpn.pyramids import GRID, make_batch, make_model, make_sample

PLACES = (1, 2, 4)


def step_by_step(model, sample, keeps):
    """Run the layers one after another with eager attention; states (n, D) and the tokens that are left.

    The ranking is the row of the last prompt token in the attention of the layer that follows.
    """
    types, embeds, _ = sample
    slow = make_model(attn_implementation="eager")
    slow.load_state_dict(model.state_dict())
    hidden, left = embeds[None], torch.arange(len(types))
    for number, layer in enumerate(slow.layers):
        for is_ranking in (True, False) if number in PLACES else (False,):
            length = len(left)
            mask = torch.full((1, 1, length, length), float("-inf")).triu(1)
            rotary = slow.rotary_emb(hidden, position_ids=torch.arange(length)[None])
            if is_ranking:
                _, weights = layer.self_attn(
                    layer.input_layernorm(hidden), position_embeddings=rotary, attention_mask=mask
                )
                last = left.tolist().index(types.index(LAST))
                visual = torch.tensor([types[token] >= 4 for token in left.tolist()]).nonzero().flatten()
                count = int(len(visual) * keeps[PLACES.index(number)])
                best = visual[weights[0, :, last, visual].mean(0).topk(count).indices]
                stays = torch.tensor([types[token] < 4 for token in left.tolist()])
                stays[best] = True
                hidden, left = hidden[:, stays], left[stays]
        hidden = layer(hidden, position_embeddings=rotary, attention_mask=mask)
    return slow.norm(hidden)[0], left


@pytest.mark.parametrize("tail", [0, 3])
@torch.no_grad()
def test_every_stage_equals_the_method_written_out(tail):
    keeps = (0.75, 0.5, 0.5)
    model = make_model(PyramidDropConfig(layers=PLACES, keeps=keeps))
    samples = [make_sample(3, [GRID], 4, tail=tail, seed=1), make_sample(1, [(3, 5)], 6, tail=tail, seed=2)]
    output = model(**make_batch(samples, "left"))
    states = output.last_hidden_state[0].split(output.layout.lengths)
    chosen = output.layout.chosen_origin.split(output.layout.lengths)
    for row, sample in enumerate(samples):
        expected, left = step_by_step(model, sample, keeps)
        torch.testing.assert_close(states[row], expected, atol=2e-5, rtol=1e-5)
        start = output.layout.padded_shape[1] * (row + 1) - len(sample[0])
        assert (chosen[row] - start).tolist() == left.tolist()


@torch.no_grad()
def test_both_scores_differ_and_keep_as_many():
    batch = make_batch([make_sample(3, [GRID], 4, seed=1)])
    outputs = [
        make_model(PyramidDropConfig(layers=PLACES, score=score))(**batch) for score in ("next", "attention")
    ]
    assert outputs[0].layout.lengths == outputs[1].layout.lengths
    assert outputs[0].layout.chosen_origin.tolist() != outputs[1].layout.chosen_origin.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keeps": (0.5,)}, r"keeps needs one value for each of the 3 layers \(8, 16, 24\), got \(0.5,\)"),
        (
            {"keeps": (0.5, 0.0, 0.5)},
            "keeps is the share of the tokens that stays, above 0 and up to 1, got 0.0",
        ),
        ({"keeps": (0.5, 1.5, 0.5)}, "up to 1, got 1.5"),
        ({"layers": (8, 8, 16)}, "layers must increase"),
        ({"score": "first"}, "score must be one of next, attention, got 'first'"),
    ],
)
def test_what_can_not_work_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PyramidDropConfig.from_fields(**fields)
