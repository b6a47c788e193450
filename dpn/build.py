"""From a configuration to what reduces visual tokens: in the decoder, or in front of the projector."""

import math
from functools import partial
from typing import Any

import numpy as np

from dpn.baselines.fastv import FastV, FastVConfig
from dpn.baselines.pyramid_drop import PyramidDrop, PyramidDropConfig
from dpn.baselines.random_drop import RandomDrop, RandomDropConfig
from dpn.baselines.static_pool import StaticPool, StaticPoolConfig
from dpn.baselines.truncate import Truncate, TruncateConfig
from dpn.config import DpnConfig, format_route
from dpn.dpe import DynamicPyramid
from dpn.experts import Grid, GridPool
from dpn.flops import visual_cost
from dpn.method import MethodConfig, ReducerConfig
from dpn.methods import front_config, reducer_config
from dpn.reducer import TokenReducer
from dpn.routing import per_layer
from dpn.selectors.base import SelectorFunction, Selects
from dpn.selectors.prumerge_plus import PruMergePlusConfig, prumerge_plus
from dpn.selectors.visionzip import VisionZipConfig, visionzip
from dpn.value import StageCosts

REDUCERS: dict[type[MethodConfig], type[TokenReducer]] = {
    StaticPoolConfig: StaticPool,
    FastVConfig: FastV,
    PyramidDropConfig: PyramidDrop,
    RandomDropConfig: RandomDrop,
    TruncateConfig: Truncate,
}
"""By the type of their configuration; DPN, which also needs the decoder's sizes, is made below."""

SELECTORS: dict[type[MethodConfig], SelectorFunction] = {
    PruMergePlusConfig: prumerge_plus,
    VisionZipConfig: visionzip,
}
"""By the type of their configuration; a smaller image (downsample) needs the tower's setting alone."""


def build_reducer(
    saved: dict[str, Any] | None, *, width: int, num_layers: int, intermediate_size: int
) -> TokenReducer | None:
    """Build the reducer that `config.reduction` describes, or None for a decoder that reduces nothing.

    Raises:
        ValueError: unknown method or field, or a layer index that the decoder doesn't have.
    """
    config = reducer_config(saved)
    if config is None:
        return None
    check_fits(config, num_layers)
    if not isinstance(config, DpnConfig):
        return REDUCERS[type(config)](config)
    costs = StageCosts(
        layers=config.layers, num_layers=num_layers, hidden_size=width, intermediate_size=intermediate_size
    )
    return DynamicPyramid(config, width, costs)


def build_selector(saved: dict[str, Any] | None) -> Selects | None:
    """Build what picks among a tower's features, or None where `config.reduction` names nothing that does.

    Raises:
        ValueError: unknown method or field.
    """
    config = front_config(saved)
    select = SELECTORS.get(type(config)) if config is not None else None
    return None if select is None else partial(select, config)


def check_divides(config: ReducerConfig, grid: Grid) -> None:
    """Refuse kernels that don't divide the grid of visual tokens, which is a slip nearly always.

    The smaller grids of later stages may be left with a remainder; `edge` says what becomes of it.

    Raises:
        ValueError: naming the kernel and the grid.
    """
    for rows, columns in config.windows:
        if grid[0] % rows or grid[1] % columns:
            raise ValueError(
                f"kernel {rows}x{columns} does not divide the {grid[0]}x{grid[1]} grid of visual tokens; "
                f"choose kernels whose rows and columns divide it"
            )


def check_fits(config: ReducerConfig, num_layers: int) -> None:
    """Refuse places that lie outside a decoder.

    Raises:
        ValueError: naming the layers and the decoder's depth.
    """
    if config.places[-1] >= num_layers:
        what = "a DPE stands" if isinstance(config, DpnConfig) else f"{config.method} reduces tokens"
        raise ValueError(
            f"layers={','.join(map(str, config.places))} doesn't fit a decoder with {num_layers} layers: "
            f"{what} in front of layer 1 to {num_layers - 1}"
        )


def check_reachable(
    config: ReducerConfig, grid: Grid, *, num_layers: int, hidden_size: int, intermediate_size: int
) -> None:
    """Refuse to train with a `budget` below what the cheapest route of an image costs: mu would only grow.

    Raises:
        ValueError: naming the budget and the share of the dense visual FLOPs (Eq. 8) that stays at least.
    """
    if not isinstance(config, DpnConfig) or not config.budget:
        return
    grids = [grid]
    for _ in config.layers:
        after = [GridPool(kernel, config.edge).grid(grids[-1]) for kernel in config.kernels]
        grids.append(min((found for found in after if math.prod(found)), key=math.prod, default=grids[-1]))
    counts = np.array([[math.prod(found) for found in grids]])
    least = visual_cost(
        per_layer(list(counts.T), config.layers, num_layers),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
    )[0]
    if config.budget < least:
        raise ValueError(
            f"budget={config.budget} is out of reach: with kernels {format_route(config.kernels)} in front "
            f"of the layers {','.join(map(str, config.layers))} of {num_layers}, an image of "
            f"{grid[0]}x{grid[1]} tokens costs at least {least:.3f} of the dense visual FLOPs; raise the "
            f"budget, move the DPEs forward or add a larger kernel"
        )
