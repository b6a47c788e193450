"""The projectors of the tests: a tower of 4 x 4 features of width 8, a decoder of width 16, 4 tokens each."""

import torch

from dpn.projectors.base import TowerShape
from dpn.projectors.build import PROJECTORS, build_visual_projector

TOWER = TowerShape(width=8, grid=(4, 4), num_layers=24, layer=23)
WIDTH = 16
OPTIONS = {name: {"num_queries": 4} if name == "resampler" else {} for name in PROJECTORS}


def build(name, *, tower=TOWER, width=WIDTH, seed=0, **options):
    """Build a projector whose weights are large enough that every input shows in every output."""
    torch.manual_seed(seed)
    config = PROJECTORS[name].config_class(**{**OPTIONS[name], **options})
    projector = build_visual_projector(name, config, tower, width)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter, mean=0.1, std=0.3)
    return projector


def features_for(projector, count=3, seed=0):
    """Random features of `count` crops, other ones for every hidden state that is read."""
    rows, columns = projector.tower.grid
    shape = (len(projector.feature_layers), count, rows * columns, projector.tower.width)
    return list(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
