"""What a caller asks of a forward pass, checked before anything is computed.

Shapes: B samples, S DPE layers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from transformers import LlamaConfig

from dpn.reducer import TokenReducer


def refuse_unserved(
    reducer: TokenReducer | None,
    config: LlamaConfig,
    routes: Tensor | None,
    router_shift: Tensor | None,
    asked: Mapping[str, Any],
) -> None:
    """Refuse what only a decoder with a reduction can do, and what it can't.

    Args:
        reducer: of the decoder, None for a plain one.
        config: of the decoder.
        routes: as `forward` takes them.
        router_shift: as `forward` takes it.
        asked: all other arguments of `forward`.

    Raises:
        ValueError: naming the argument, and what to do instead.
    """
    if asked.get("budget") is not None:
        raise ValueError(f"budget={asked['budget']} is an argument of generate(); forward takes router_shift")
    if reducer is None:
        if routes is not None or router_shift is not None:
            raise ValueError(
                "routes or a shift are given, but this decoder has no reduction that could take them: "
                "its config.reduction is empty; load it with --reduction dpn eval_choice=static route=..."
            )
        return
    if not reducer.num_experts and (routes is not None or router_shift is not None):
        raise ValueError(
            f"routes or a shift are given, but --reduction {reducer.config.method} has no routers "
            f"that could take them; leave them out"
        )
    for name in ("output_hidden_states", "output_attentions"):
        if asked.get(name, getattr(config, name)):
            raise ValueError(
                f"{name}=True isn't served with a reduction: sequences have another length per stage; "
                f"set it to False"
            )


def forced_routes(routes: Tensor, batch: int, num_dpes: int, num_experts: int) -> np.ndarray:
    """Check forced routes (B, S) and bring them to the host.

    Raises:
        ValueError: another shape, no whole numbers, or an expert that there isn't.
    """
    shape = (batch, num_dpes)
    highest = routes.max().item() if routes.numel() else 0
    if tuple(routes.shape) != shape or routes.is_floating_point() or highest >= num_experts:
        raise ValueError(
            f"routes must have the shape {shape}, samples x DPE layers, and name experts 0 to "
            f"{num_experts - 1} (or -1 for the router's choice); got {tuple(routes.shape)}, {routes.dtype}, "
            f"highest {highest}"
        )
    return routes.cpu().numpy()


def check_shift(shift: Tensor, batch: int) -> None:
    """Refuse a shift of another shape than (B,); nothing is read from the device.

    Raises:
        ValueError: naming what was given.
    """
    if not isinstance(shift, Tensor) or tuple(shift.shape) != (batch,) or not shift.is_floating_point():
        found = f"{tuple(shift.shape)}, {shift.dtype}" if isinstance(shift, Tensor) else repr(shift)
        raise ValueError(f"router_shift must be a tensor of ({batch},) floats, one per sample; got {found}")
