"""The authors' released checkpoints: their `pooling` dictionary as a `DpnConfig`, and their names as ours.

What they say in one dictionary of config.json, we say in `reduction`; `preset=paper` is their behaviour. A
setting whose meaning is settled by none of their published checkpoints is refused by name instead of guessed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dpn.config import DpnConfig, Kernel, format_route

FIELD = "pooling"
"""The field of config.json."""

PUBLISHED: dict[str, Any] = {
    "pooling_function": "max",
    "pooling_location": "post",
    "prepooling": False,
    "use_special_token": True,
    "detach_cls_token_to_predict": False,
    "router_version": "v1",
}
"""What a key that is missing means: the published setting."""

ALLOWED: dict[str, tuple[Any, ...]] = {
    "pooling_type": ("adaptive", "static", "random"),
    "pooling_function": ("max", "avg"),
    "pooling_location": ("post",),
    "prepooling": (False,),
    "use_special_token": (True, False),
    "detach_cls_token_to_predict": (True, False),
    "router_version": ("v1", "v2"),
}
"""The values that are read, by key. Not among them: convolutional experts, pooling in front of a layer or of
the decoder."""

ROUTER_NAMES = {
    "v1": {"mlp1.0": "norm", "mlp1.1": "hidden", "predictor": "predictor"},
    "v2": {"predictor": "predictor"},
}
"""Modules of their router, by version, and of ours."""


def config_from_pooling(pooling: Mapping[str, Any]) -> DpnConfig:
    """Read the authors' `pooling` dictionary: `preset=paper` with their layers, kernels and choice.

    Their index i pools the output of layer i, which is the input of layer i + 1, where our DPE stands.

    Raises:
        ValueError: a key that is missing or unknown, or a setting that isn't supported, naming it.

    >>> kernels = [[1, 1], [1, 2], [2, 2]]
    >>> layers = [{"index": 7, "kernel_size": kernels, "stride": kernels}]
    >>> config_from_pooling({"pooling_type": "adaptive", "pooling_layers": layers}).layers
    (8,)
    """
    setting = checked_setting(pooling)
    places = _places(pooling["pooling_layers"])
    common = {
        "preset": "paper",
        "layers": tuple(index + 1 for index, _ in places),
        "pooling": setting["pooling_function"],
        **({} if setting["use_special_token"] else {"router_source": "last"}),
    }
    if setting["pooling_type"] == "static":
        return DpnConfig.from_fields(**common, **_static(places))
    kernels = _common_kernels(places)
    if setting["pooling_type"] == "random":
        choice = {"train_choice": "random", "eval_choice": "random", "gate": "none", "loss_weight": 0.0}
        return DpnConfig.from_fields(**common, kernels=kernels, **choice)
    if not setting["use_special_token"]:
        raise ValueError(
            f"{FIELD}.use_special_token=False with pooling_type=adaptive isn't supported: only routers that "
            f"read the routing token are (the published checkpoints do)"
        )
    is_stopped = setting["detach_cls_token_to_predict"]
    return DpnConfig.from_fields(
        **common,
        kernels=kernels,
        router={"v1": "mlp", "v2": "linear"}[setting["router_version"]],
        router_gradient="stopped" if is_stopped else "full",
    )


def checked_setting(pooling: Mapping[str, Any]) -> dict[str, Any]:
    """Give every key but `pooling_layers` a value that is supported, the published one where it is missing.

    Raises:
        ValueError: no dictionary, or naming the key, what was found and what is read.
    """
    if not isinstance(pooling, Mapping):
        raise ValueError(f"config.json's `{FIELD}` must be an object, found {pooling!r:.60}")
    known = {*ALLOWED, "pooling_layers"}
    if unknown := sorted(set(pooling) - known):
        names = ", ".join(sorted(known))
        raise ValueError(f"config.json's `{FIELD}` has unknown keys {unknown}; known: {names}")
    if missing := sorted({"pooling_type", "pooling_layers"} - set(pooling)):
        raise ValueError(f"config.json's `{FIELD}` lacks {' and '.join(missing)}")
    setting = {**PUBLISHED, **{name: pooling[name] for name in ALLOWED if name in pooling}}
    for name, value in setting.items():
        if value not in ALLOWED[name] or isinstance(value, bool) != isinstance(ALLOWED[name][0], bool):
            raise ValueError(
                f"{FIELD}.{name}={value!r} isn't supported; this version reads "
                f"{' or '.join(map(str, ALLOWED[name]))}"
            )
    return setting


def has_router(pooling: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint with this dictionary brings routers: static and random pooling have none."""
    return checked_setting(pooling)["pooling_type"] == "adaptive"


def key_mapping(pooling: Mapping[str, Any]) -> dict[str, str]:
    r"""Map their names (patterns) to ours, for a decoder under `model.`.

    Raises:
        ValueError: as `config_from_pooling`.

    >>> kernels = [[1, 1], [2, 2]]
    >>> layers = [{"index": 7, "kernel_size": kernels, "stride": kernels}]
    >>> key_mapping({"pooling_type": "adaptive", "pooling_layers": layers, "router_version": "v2"})
    {'^model\\.layers\\.7\\.pooling_router\\.predictor\\.': 'model.reducer.routers.0.predictor.'}
    """
    if not has_router(pooling):
        return {}
    names = ROUTER_NAMES[checked_setting(pooling)["router_version"]]
    return {
        rf"^model\.layers\.{index}\.pooling_router\.{re.escape(theirs)}\.": (
            f"model.reducer.routers.{number}.{ours}."
        )
        for number, (index, _) in enumerate(_places(pooling["pooling_layers"]))
        for theirs, ours in names.items()
    }


def _places(layers: Any) -> list[tuple[int, tuple[Kernel, ...]]]:
    """Read `pooling_layers`: index and kernels of every place, in the order of the layers."""
    is_list = isinstance(layers, Sequence) and len(layers) > 0
    if not is_list or not all(isinstance(item, Mapping) for item in layers):
        raise ValueError(f"{FIELD}.pooling_layers must list objects with an index, found {layers!r:.60}")
    places = []
    for item in layers:
        index = item.get("index")
        if not isinstance(index, int) or isinstance(index, bool):
            raise ValueError(f"{FIELD}.pooling_layers: index must be a layer counted from 0, found {index!r}")
        kernels = _kernels(item.get("kernel_size"), index)
        if "stride" in item and _kernels(item["stride"], index) != kernels:
            raise ValueError(
                f"{FIELD}.pooling_layers, index {index}: stride {item['stride']} differs from kernel_size "
                f"{item['kernel_size']}; windows that overlap or leave gaps aren't supported"
            )
        places.append((index, kernels))
    return sorted(places)


def _kernels(value: Any, index: int) -> tuple[Kernel, ...]:
    """Read one size, [1, 2] or 2, or a list of [rows, columns] sizes."""
    single = [value, value] if _is_number(value) else value
    sizes = [single] if _is_size(single) else value
    if not isinstance(sizes, list) or not sizes or not all(map(_is_size, sizes)):
        raise ValueError(
            f"{FIELD}.pooling_layers, index {index}: kernel_size and stride are [rows, columns], or a list "
            f"of these, found {value!r:.60}"
        )
    return tuple((size[0], size[1]) for size in sizes)


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _common_kernels(places: Sequence[tuple[int, tuple[Kernel, ...]]]) -> tuple[Kernel, ...]:
    """Give the kernels of all places, which must be the same."""
    first, kernels = places[0]
    for index, others in places:
        if others != kernels:
            raise ValueError(
                f"{FIELD}.pooling_layers: index {index} chooses from {format_route(others)}, index {first} "
                f"from {format_route(kernels)}; places with different kernels aren't supported (the "
                f"published checkpoints have 1x1,1x2,2x2 everywhere)"
            )
    return kernels


def _static(places: Sequence[tuple[int, tuple[Kernel, ...]]]) -> dict[str, Any]:
    """Give the fields of pooling by one fixed kernel per place: no router, so nothing to multiply by."""
    for index, kernels in places:
        if len(kernels) != 1:
            raise ValueError(
                f"{FIELD}.pooling_layers, index {index}: pooling_type=static takes one kernel per place, "
                f"found {format_route(kernels)}"
            )
    route = tuple(kernels[0] for _, kernels in places)
    kernels = tuple(dict.fromkeys([(1, 1), *route]))
    if len(kernels) == 1:
        raise ValueError(f"{FIELD}: pooling_type=static with 1x1 at every place pools nothing; remove it")
    fixed = {"train_choice": "static", "eval_choice": "static", "gate": "none", "loss_weight": 0.0}
    return {**fixed, "kernels": kernels, "route": route}
