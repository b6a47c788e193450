"""The table of docs/projectors.md is what the modules say of themselves at 7B sizes."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dpn.projectors.base import TowerShape
from dpn.projectors.build import PROJECTORS
from dpn.projectors.layers import mlp
from dpn.projectors.options import parse_projector

PAGE = Path(__file__).parents[3] / "docs" / "projectors.md"
CLIP_L = TowerShape(width=1024, grid=(24, 24), num_layers=24, layer=23)


def rows():
    """Cells of every row of the table, by type."""
    lines = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE.read_text().split("## ")[0], re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in lines}


def size_and_work(module, features):
    with FlopCounterMode(display=False) as counter:
        module(features)
    count = sum(parameter.numel() for parameter in module.parameters())
    return f"{count / 1e6:.1f}", f"{counter.get_total_flops() / 2e9:.1f}"


def test_every_projector_has_a_row_and_so_has_llavas():
    assert list(rows()) == ["mlp2x_gelu", *PROJECTORS]


@pytest.mark.parametrize("name", PROJECTORS)
def test_a_row_says_what_the_module_is(name):
    _, tokens, grid, parameters, work, options = rows()[name]
    config = parse_projector(name, re.findall(r"`([^`]+)`", options))
    assert int(tokens) == config.num_tokens((24, 24))
    shown = config.grid((24, 24))
    assert grid == ("none" if shown is None else f"{shown[0]}x{shown[1]}")
    with torch.device("meta"):
        built = PROJECTORS[name](config, CLIP_L, 4096)
        default = PROJECTORS[name](PROJECTORS[name].config_class(), CLIP_L, 4096)
        features = [torch.empty(1, 576, 1024) for _ in built.feature_layers]
        assert size_and_work(built, features) == (parameters, work)
    assert built.feature_layers == default.feature_layers
    shapes = [{key: value.shape for key, value in it.state_dict().items()} for it in (built, default)]
    assert shapes[0] == shapes[1]


def test_llavas_own_row_is_right_too():
    with torch.device("meta"):
        found = size_and_work(mlp(1024, 4096), torch.empty(1, 576, 1024))
    assert tuple(rows()["mlp2x_gelu"][3:5]) == found
