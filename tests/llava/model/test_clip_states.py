"""What the class token attends to, made for one layer, is what eager CLIP attention says."""

import pytest
import torch
from transformers import CLIPVisionModel

from llava.model.clip_states import class_attention, encoder_layers, hidden_states
from tests.llava.model.prompts import make_images


@pytest.fixture(scope="module")
def eager(tiny_clip):
    return CLIPVisionModel.from_pretrained(tiny_clip, attn_implementation="eager").eval()


@pytest.mark.parametrize("index", [0, 1, 2])
@torch.no_grad()
def test_the_class_tokens_attention_is_the_mean_over_heads_of_eager_attention(eager, tiny_clip, index):
    pixels = make_images(3)
    reference = eager(pixels, output_attentions=True).attentions[index]  # (N, h, 1 + P, 1 + P)
    assert reference.shape == (3, eager.config.num_attention_heads, 17, 17)
    plain = CLIPVisionModel.from_pretrained(tiny_clip)  # whose own kernels keep no attention
    [states] = hidden_states(plain, pixels, [index])
    attention, keys = class_attention(encoder_layers(plain)[index], states)
    torch.testing.assert_close(attention, reference[:, :, 0, 1:].mean(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(1 - attention.sum(1), reference[:, :, 0, 0].mean(1), atol=1e-6, rtol=1e-5)
    assert attention.std() > 1e-4
    assert keys.shape == (3, 16, eager.config.hidden_size)


@torch.no_grad()
def test_the_keys_are_those_that_the_layer_itself_compares(eager):
    pixels = make_images(2)
    layer = encoder_layers(eager)[1]
    made = []
    handle = layer.self_attn.k_proj.register_forward_hook(lambda _, __, keys: made.append(keys))
    [states] = hidden_states(eager, pixels, [1])
    handle.remove()
    _, keys = class_attention(layer, states)
    torch.testing.assert_close(keys, made[0][:, 1:])


def test_a_tower_tells_how_the_layer_behind_its_features_looked(tiny_llava, eager):
    tower = tiny_llava()[1].get_vision_tower()
    pixels = make_images(2)
    seen = tower.attended(pixels)
    assert torch.equal(seen.features, tower(pixels))
    assert seen.grid == (4, 4)
    reference = eager(pixels, output_attentions=True).attentions[-2]  # mm_vision_select_layer=-2 of 3
    torch.testing.assert_close(seen.attention, reference[:, :, 0, 1:].mean(1), atol=1e-6, rtol=1e-5)
    tower.select_layer = 0
    with pytest.raises(ValueError, match="mm_vision_select_layer=0 takes the embedding"):
        tower.attended(pixels)


@torch.no_grad()
def test_a_smaller_image_gets_interpolated_positions_and_the_own_size_is_left_alone(eager):
    pixels = torch.nn.functional.interpolate(make_images(2), size=28)
    [states] = hidden_states(eager, pixels, [-1])
    assert states.shape[1] == 1 + 4
    expected = eager(pixels, interpolate_pos_encoding=True).last_hidden_state
    assert torch.equal(states, expected)
    own = make_images(2)
    assert torch.equal(hidden_states(eager, own, [-1])[0], eager(own).last_hidden_state)
