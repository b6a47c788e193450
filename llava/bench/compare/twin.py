"""How many visual tokens a method in front of the decoder leaves, seen on a tiny model with the same grid.

Such methods may look at the image before they say how much they keep, so nothing but running them tells. A
tiny tower takes milliseconds; what the model that is timed really does is reported beside it.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from llava.bench.inputs import make_batch, pixels_of
from llava.bench.models import build_ours, build_reference
from llava.bench.shapes import PRESETS, Shape

IMAGES = 4
"""Images that the count is a mean of."""


def tokens_in_front(reduction: dict[str, Any], shape: Shape) -> float:
    """Count the visual tokens of an image that a reduction (`to_dict()`) hands to the decoder: a mean."""
    twin = replace(PRESETS["tiny"], grid=shape.grid, text=2)
    model = build_ours(_reference(twin), twin, reduction=reduction, has_tower=True)
    batch = make_batch(model, twin, size=IMAGES, seed=0, has_tower=True)
    with torch.no_grad():
        images = pixels_of(model, batch.ours["images"])
        spliced = model.splice(batch.ours["input_ids"], None, None, images, None, "left")
    return sum(spliced.visual_counts) / IMAGES


@lru_cache(maxsize=1)
def _reference(twin: Shape) -> nn.Module:
    return build_reference(twin, torch.device("cpu"), torch.float32, 0)
