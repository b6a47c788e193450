"""From a configuration to the module that reduces tokens."""

from typing import Any

from dpn.config import DpnConfig, from_dict
from dpn.dpe import DynamicPyramid


def build_reducer(saved: dict[str, Any] | None, *, width: int, num_layers: int) -> DynamicPyramid | None:
    """Build the reducer that `config.reduction` describes, or None for a plain decoder.

    Raises:
        ValueError: unknown method or field, or a layer index that the decoder doesn't have.
    """
    if saved is None:
        return None
    config = from_dict(saved)
    check_fits(config, num_layers)
    return DynamicPyramid(config, width)


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
