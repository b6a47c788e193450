"""Small random pyramids whose routes matter: large initial weights, so that every token changes every
other."""

import torch

from dpn import DpnConfig, PyramidLlamaConfig, PyramidLlamaModel
from dpn.spans import LAST, ROUTER, VISUAL

NUM_LAYERS = 5
GRID = (4, 4)


def make_config(**fields):
    """A configuration with DPEs in front of layers 1, 2 and 4."""
    return DpnConfig.from_fields(**{"layers": (1, 2, 4), **fields})


def make_model(reduction=None, seed=0, **sizes):
    torch.manual_seed(seed)
    config = PyramidLlamaConfig(
        **{
            "vocab_size": 60,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": NUM_LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.25,
            "pad_token_id": 0,
            **sizes,
        },
        reduction=None if reduction is None else reduction.to_dict(),
    )
    return PyramidLlamaModel(config).eval()


def make_sample(before, grids, after, tail=0, router_token=True, seed=0):
    """Types and embeddings of one sample: text, images of the given grids, text with the routing marks, more
    text."""
    types = [0] * before
    for image, (rows, columns) in enumerate(grids):
        types += [VISUAL + 2 * image] * (rows * columns)
    types += [0] * after
    if router_token:
        types[-2] = ROUTER
    types[-1] = LAST
    types += [0] * tail
    generator = torch.Generator().manual_seed(seed)
    return types, torch.randn(len(types), 32, generator=generator), grids


def make_batch(samples, side="right"):
    """Pad samples to one batch: dict of forward's arguments."""
    length, images = max(len(types) for types, _, _ in samples), max(len(grids) for _, _, grids in samples)
    batch = {
        "inputs_embeds": torch.zeros(len(samples), length, 32),
        "attention_mask": torch.zeros(len(samples), length, dtype=torch.long),
        "mm_token_type_ids": torch.zeros(len(samples), length, dtype=torch.long),
        "visual_grids": torch.zeros(len(samples), images, 2, dtype=torch.long),
    }
    for row, (types, embeds, grids) in enumerate(samples):
        place = slice(0, len(types)) if side == "right" else slice(length - len(types), length)
        batch["inputs_embeds"][row, place] = embeds
        batch["attention_mask"][row, place] = 1
        batch["mm_token_type_ids"][row, place] = torch.tensor(types)
        for image, grid in enumerate(grids):
            batch["visual_grids"][row, image] = torch.tensor(grid)
    return batch
