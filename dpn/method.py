"""What every method's configuration can do, and what each kind of method adds to that.

A configuration is a frozen dataclass beside the module that it configures; `dpn/methods.py` lists them all.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Self, cast

from dpn.flops import DecoderShape

Kernel = tuple[int, int]

POSITION_MODES = ("renumber", "keep")


class MethodConfig:
    """The settings of one method, as `--reduction METHOD FIELD=VALUE ...` and config.json give them."""

    method: ClassVar[str]
    """Its name."""
    may_change: ClassVar[tuple[str, ...]] = ()
    """Fields that may differ from a checkpoint's when it is loaded: they change no weight's meaning."""

    @classmethod
    def from_fields(cls, **given: Any) -> Self:
        """Build from the defaults and the fields given; a ValueError names field, rule and value."""
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON-ready form that `config.json` stores under `reduction`."""
        return {"method": self.method, **json.loads(json.dumps(asdict(cast(Any, self))))}


class ReducerConfig(MethodConfig):
    """Settings of a method that acts between decoder layers (dpn/reducer.py)."""

    position_mode: str
    """Rotary positions behind a place: renumber counts 0..n-1 in every stage, keep leaves every token the
    one it had (a pooled token that of its window's first)."""

    @property
    def places(self) -> tuple[int, ...]:
        """The decoder layers in front of which tokens are reduced, counted from 0."""
        raise NotImplementedError

    @property
    def windows(self) -> tuple[Kernel, ...]:
        """Rows x columns of the windows that are pooled; () for methods that need no grid of tokens."""
        return ()


class FixedRateConfig(ReducerConfig):
    """Settings of a method whose counts are known before anything is seen."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the visual tokens that is left behind every place, of those in front of it: (S,)."""
        raise NotImplementedError

    def deciding_flops(self, tokens: Sequence[int], shape: DecoderShape) -> int:
        """Count the multiply-adds that it takes to decide what stays of one sample.

        Args:
            tokens: of the sample in front of every place, text and visual (S,).
            shape: of the decoder.
        """
        return 0


class FrontConfig(MethodConfig):
    """Settings of a method that acts in front of the projector: on the image, or on the tower's features.

    It has no weights, so every plain checkpoint can run with it.
    """

    trains: ClassVar[bool] = False
    """Whether a model can be trained with it."""

    def image_side(self, own: int, patch: int) -> int:
        """Give the pixels along a side of the image that the tower is to read.

        Args:
            own: those that it was trained with.
            patch: along a side of one of its patches.

        Raises:
            ValueError: a side that the tower can't read.
        """
        return own


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that isn't one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def check_places(layers: tuple[int, ...]) -> None:
    """Refuse places that don't increase, or stand in front of the whole decoder."""
    if not layers or list(layers) != sorted(set(layers)) or layers[0] < 1:
        raise ValueError(f"layers must increase and start at 1 or later, got {layers}")


def check_one_per_layer(name: str, values: Sequence[Any], layers: tuple[int, ...]) -> None:
    """Refuse a list that doesn't go with the places."""
    if len(values) != len(layers):
        raise ValueError(
            f"{name} needs one value for each of the {len(layers)} layers {layers}, got {tuple(values)}"
        )


def check_keeps(name: str, keeps: Sequence[float]) -> None:
    """Refuse shares of the tokens that aren't above 0 and at most 1."""
    for keep in keeps:
        if not (math.isfinite(keep) and 0 < keep <= 1):
            raise ValueError(f"{name} is the share of the tokens that stays, above 0 and up to 1, got {keep}")
