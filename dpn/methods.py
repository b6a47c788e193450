"""All methods by name: what `--reduction METHOD` and the `reduction` of a config.json may say.

A new method is a row here, a row in `dpn/build.py`, a file and a test (docs/add_a_reducer.md).
"""

from dataclasses import fields
from typing import Any

from dpn.baselines.fastv import FastVConfig
from dpn.baselines.pyramid_drop import PyramidDropConfig
from dpn.baselines.random_drop import RandomDropConfig
from dpn.baselines.static_pool import StaticPoolConfig
from dpn.baselines.truncate import TruncateConfig
from dpn.config import DpnConfig
from dpn.method import FrontConfig, MethodConfig, ReducerConfig
from dpn.selectors.downsample import DownsampleConfig
from dpn.selectors.prumerge_plus import PruMergePlusConfig
from dpn.selectors.visionzip import VisionZipConfig

METHODS: dict[str, type[MethodConfig]] = {
    "dpn": DpnConfig,
    "static": StaticPoolConfig,
    "fastv": FastVConfig,
    "pyramid_drop": PyramidDropConfig,
    "random": RandomDropConfig,
    "truncate": TruncateConfig,
    "prumerge_plus": PruMergePlusConfig,
    "visionzip": VisionZipConfig,
    "downsample": DownsampleConfig,
}


def from_dict(saved: dict[str, Any]) -> MethodConfig:
    """Read the `reduction` field of a config.json back.

    Raises:
        ValueError: no object, no known method, or a field this version doesn't have.
    """
    if not isinstance(saved, dict):
        raise ValueError(f"config.json's `reduction` must be an object with a method, found {saved!r:.60}")
    values = {name: _as_tuple(value) for name, value in saved.items()}
    method = values.pop("method", None)
    if method not in METHODS:
        raise ValueError(f"reduction names the method {method!r}; known: {', '.join(METHODS)}")
    known = {field.name for field in fields(METHODS[method])}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"reduction {method} has unknown fields {unknown}; it was written by another version"
        )
    return METHODS[method](**values)


def reducer_config(saved: dict[str, Any] | None) -> ReducerConfig | None:
    """Read a `reduction` that acts in the decoder; None where there is none, or where it acts before it."""
    config = None if saved is None else from_dict(saved)
    return config if isinstance(config, ReducerConfig) else None


def front_config(saved: dict[str, Any] | None) -> FrontConfig | None:
    """Read a `reduction` that acts in front of the projector; None where there is none, or a reducer."""
    config = None if saved is None else from_dict(saved)
    return config if isinstance(config, FrontConfig) else None


def _as_tuple(value: Any) -> Any:
    """Turn JSON's lists into the tuples that the dataclass holds."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value
