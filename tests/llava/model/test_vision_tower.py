"""The tower: every picture gets its own features, and whoever unfreezes it trains it."""

import pytest
import torch

from llava.model.clip_states import hidden_states
from tests.llava.model.prompts import alone, make_batch, make_images


def test_every_picture_of_a_batch_gets_its_own_features(tiny_llava):
    tower = tiny_llava()[1].get_vision_tower()
    pixels = make_images(3)
    together = tower(pixels)
    assert together.shape == (3, 16, 32)
    for index in range(3):
        torch.testing.assert_close(together[index : index + 1], tower(pixels[index : index + 1]))
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_features_stay_the_same_after_the_decoders_states_were_asked_for(tiny_llava):
    model, batch = tiny_llava()[1].eval(), alone(0)
    tower = model.get_vision_tower()
    before = tower(batch["images"])
    model(**batch, output_hidden_states=True, output_attentions=True)
    assert torch.equal(tower(batch["images"]), before)


def test_hidden_states_are_the_embedding_and_the_output_of_every_layer(tiny_llava):
    tower = tiny_llava()[1].get_vision_tower().vision_tower
    pixels = make_images(2)
    states = [hidden_states(tower, pixels, [index])[0] for index in range(4)]
    reference = tower(pixels, output_hidden_states=True)
    for state, expected in zip(states, reference.hidden_states, strict=True):
        assert torch.equal(state, expected)
    assert torch.equal(hidden_states(tower, pixels, [-1])[0], reference.last_hidden_state)
    assert torch.equal(hidden_states(tower, pixels, [-4])[0], states[0])
    with pytest.raises(ValueError, match="mm_vision_select_layer=4, but the vision tower has 3 layers"):
        hidden_states(tower, pixels, [4])[0]


def test_an_unfrozen_tower_learns_and_a_frozen_one_keeps_no_graph(tiny_llava):
    model = tiny_llava()[1].train()
    tower = model.get_vision_tower()
    assert not tower(make_images(1)).requires_grad
    tower.requires_grad_(True)
    model(**make_batch(side="right", answers=2)).loss.backward()
    layers = tower.vision_tower.get_submodule("encoder.layers")
    learning = [any(item.grad is not None for item in layer.parameters()) for layer in layers]
    assert learning == [True, True, False]  # layer -2 is taken, so the last one has no part in it
    with torch.no_grad():
        assert not tower(make_images(1)).requires_grad


def test_pixels_keep_their_dtype_whatever_the_towers(tiny_llava):
    tower = tiny_llava()[1].get_vision_tower()
    tower.vision_tower.to(torch.bfloat16)
    assert tower(make_images(1)).dtype == torch.float32
    assert tower.dummy_feature.shape == (1, 32)
