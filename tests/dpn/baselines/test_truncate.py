"""Truncate: the image is gone in front of layer K, and seen by all layers before."""

import torch
from transformers.cache_utils import DynamicCache

from dpn.baselines.truncate import TruncateConfig
from dpn.cache import lengths
from tests.dpn.pyramids import GRID, make_batch, make_model, make_sample


@torch.no_grad()
def test_later_layers_run_on_the_text_alone_with_its_positions():
    model = make_model(TruncateConfig(layer=2))
    types, embeds, grids = make_sample(3, [GRID], 4, seed=1)
    output = model(**make_batch([(types, embeds, grids)]))
    hidden, positions = embeds[None], torch.arange(23)[None]
    plain = make_model()
    plain.load_state_dict(model.state_dict())
    for number, layer in enumerate(plain.layers):
        if number == 2:
            text = [0, 1, 2, 19, 20, 21, 22]
            hidden, positions = hidden[:, text], positions[:, text]
        hidden = layer(hidden, position_embeddings=plain.rotary_emb(hidden, position_ids=positions))
    torch.testing.assert_close(output.last_hidden_state, plain.norm(hidden), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_early_layers_see_the_image_and_later_ones_cache_the_text():
    cache = DynamicCache()
    make_model(TruncateConfig(layer=3))(
        **make_batch([make_sample(3, [GRID, GRID], 4)]), past_key_values=cache
    )
    assert lengths(cache) == [39, 39, 39, 7, 7]
