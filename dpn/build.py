"""From a configuration to the module that reduces tokens."""

from typing import Any

from dpn.config import DpnConfig, from_dict
from dpn.dpe import DynamicPyramid
from dpn.experts import Grid
from dpn.value import StageCosts


def build_reducer(
    saved: dict[str, Any] | None, *, width: int, num_layers: int, intermediate_size: int
) -> DynamicPyramid | None:
    """Build the reducer that `config.reduction` describes, or None for a plain decoder.

    Raises:
        ValueError: unknown method or field, or a layer index that the decoder doesn't have.
    """
    if saved is None:
        return None
    config = from_dict(saved)
    check_fits(config, num_layers)
    costs = StageCosts(
        layers=config.layers, num_layers=num_layers, hidden_size=width, intermediate_size=intermediate_size
    )
    return DynamicPyramid(config, width, costs)


def check_divides(config: DpnConfig, grid: Grid) -> None:
    """Refuse kernels that don't divide the grid of visual tokens, which is a slip nearly always.

    The smaller grids of later stages may be left with a remainder; `edge` says what becomes of it.

    Raises:
        ValueError: naming the kernel and the grid.
    """
    for rows, columns in config.kernels:
        if grid[0] % rows or grid[1] % columns:
            raise ValueError(
                f"kernel {rows}x{columns} does not divide the {grid[0]}x{grid[1]} grid of visual tokens; "
                f"choose kernels whose rows and columns divide it"
            )


def check_fits(config: DpnConfig, num_layers: int) -> None:
    """Refuse DPE layers that lie outside a decoder.

    Raises:
        ValueError: naming the layers and the decoder's depth.
    """
    if config.layers[-1] >= num_layers:
        raise ValueError(
            f"layers={','.join(map(str, config.layers))} doesn't fit a decoder with {num_layers} layers: a"
            f" DPE stands in "
            f"front of layer 1 to {num_layers - 1}"
        )
