"""Made-up features of a tower, for the selectors' tests."""

import torch

from dpn.selectors.base import AttendedFeatures

GRID = (4, 4)
WIDTH = 8


def attended(crops=3, grid=GRID, seed=0, width=WIDTH):
    """Random features, keys and attention: some crops crowded, some with hardly an outlier."""
    generator = torch.Generator().manual_seed(seed)
    count = grid[0] * grid[1]
    features, keys = torch.randn(2, crops, count, width, generator=generator)
    sharpness = torch.arange(1, crops + 1)[:, None]
    scores = sharpness * torch.randn(crops, count + 1, generator=generator)
    return AttendedFeatures(features, scores.softmax(1)[:, 1:], keys, grid)


def crop_of(seen, index):
    """One crop of a batch as a batch of its own."""
    part = slice(index, index + 1)
    return AttendedFeatures(seen.features[part], seen.attention[part], seen.keys[part], seen.grid)


def one_crop(features, attention, keys, grid):
    """A crop whose features, attention and keys are written out."""
    given = (torch.tensor(each, dtype=torch.float32)[None] for each in (features, attention, keys))
    return AttendedFeatures(*given, grid)
