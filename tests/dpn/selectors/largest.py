"""Largest: the features with the largest norm stay.

Shapes: C crops, N features of a crop, F feature width, K features that stay of a crop.
"""

from dataclasses import dataclass
from typing import ClassVar

from dpn.selectors.base import AttendedFeatures, Selection, SelectorConfig, amount_of, check_amount


@dataclass(frozen=True, kw_only=True)
class LargestConfig(SelectorConfig):
    """How many features stay."""

    method: ClassVar[str] = "largest"
    may_change: ClassVar[tuple[str, ...]] = ("amount",)

    amount: float = 0.25
    """Of every crop: a share of its features below 1, a count from 1."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_amount("amount", self.amount)

    def check(self, num_features: int) -> None:
        kept = amount_of(self.amount, num_features)
        if not 1 <= kept <= num_features:
            raise ValueError(
                f"amount={self.amount:.6g} asks for {kept} of the {num_features} features of a crop; "
                f"1 to {num_features} can stay"
            )


def largest(config: LargestConfig, seen: AttendedFeatures) -> Selection:
    """Keep the K features of every crop with the largest norm, as they lie in the image."""
    crops, num_features, width = seen.features.shape
    kept = amount_of(config.amount, num_features)
    rows = seen.features.float().norm(dim=2).topk(kept).indices.sort(1).values  # (C, K)
    features = seen.features.gather(1, rows[..., None].expand(-1, -1, width))  # (C, K, F)
    return Selection(features.flatten(0, 1), (kept,) * crops)
