"""VisionZip: the features that the class token looks at, and means of the others.

Yang et al., *VisionZip: Longer is Better but Not Necessary in Vision Language Models*, 2024,
section 3.

Dominant tokens are those with the most attention of the class token, mean over heads, in the layer whose
output LLaVA takes. Of the others, evenly spaced ones become targets; every other feature joins the target
whose key is most like its own, and a target with those that joined it makes one contextual token. Dominant
tokens come first, in the order of the image, then contextual ones.

Chosen here: likeness is the cosine of keys of all heads; a contextual token is the mean of its features, so
that it has a feature's scale; the class token itself is no token, because `mm_vision_select_feature=patch`
leaves it out.

Shapes: C crops, N features of a crop, F feature width, D dominant, T contextual tokens, R = N - D others.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from dpn.experts import to_device
from dpn.selectors.base import (
    AttendedFeatures,
    Selection,
    SelectorConfig,
    amount_of,
    check_amount,
    similarities,
)


@dataclass(frozen=True, kw_only=True)
class VisionZipConfig(SelectorConfig):
    """How many tokens of both kinds stay: the paper's 64 of 576 by default."""

    method: ClassVar[str] = "visionzip"
    may_change: ClassVar[tuple[str, ...]] = ("dominant", "contextual")

    dominant: float = 54 / 576
    """Dominant tokens of every crop: a share of its features below 1, a count from 1."""
    contextual: float = 10 / 576
    """Contextual tokens of every crop: a share or a count as well."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        check_amount("dominant", self.dominant)
        check_amount("contextual", self.contextual)

    def amounts(self, num_features: int) -> tuple[int, int]:
        """Count D and T among the N features of a crop."""
        return amount_of(self.dominant, num_features), amount_of(self.contextual, num_features)

    def check(self, num_features: int) -> None:
        """Refuse amounts that leave nothing of a crop's features, or ask for more than there are."""
        dominant, contextual = self.amounts(num_features)
        if not 1 <= dominant + contextual <= num_features:
            raise ValueError(
                f"dominant={self.dominant:.6g} and contextual={self.contextual:.6g} ask for {dominant} + "
                f"{contextual} tokens of the {num_features} features of a crop; 1 to {num_features} can stay"
            )


def visionzip(config: VisionZipConfig, seen: AttendedFeatures) -> Selection:
    """Keep D dominant and T contextual tokens of every crop; the device isn't read.

    Raises:
        ValueError: more tokens are asked for than a crop has features, or none.
    """
    crops, num_features, _ = seen.features.shape
    config.check(num_features)
    dominant, contextual = config.amounts(num_features)
    chosen, others = _order(seen.attention, dominant)
    kept = [_rows(seen.features, chosen)]  # (C, D, F)
    if contextual:
        kept.append(_merged(_rows(seen.features, others), _rows(seen.keys, others), contextual))
    return Selection(torch.cat(kept, dim=1).flatten(0, 1), (dominant + contextual,) * crops)


def _merged(features: Tensor, keys: Tensor, count: int) -> Tensor:
    """Merge features (C, R, F) to evenly spaced targets by their keys (C, R, F): (C, T, F)."""
    targets = to_device(np.arange(count) * keys.shape[1] // count, keys.device)  # (T,)
    likeness = similarities(keys, keys[:, targets])  # (C, R, T)
    own = torch.arange(count, device=keys.device)
    joined = likeness.argmax(2)  # (C, R)
    joined[:, targets] = own  # a target is its own, whoever else has its key
    joins = (joined[..., None] == own).float()  # (C, R, T)
    share = joins / joins.sum(1, keepdim=True)
    return (share.transpose(1, 2) @ features.float()).to(features.dtype)  # (C, T, F)


def _order(attention: Tensor, dominant: int) -> tuple[Tensor, Tensor]:
    """Find the dominant features (C, D) by attention (C, N), and the others (C, R), both as they lie."""
    ranked = attention.argsort(dim=1, descending=True, stable=True)  # of equals, the earlier one
    return ranked[:, :dominant].sort(dim=1).values, ranked[:, dominant:].sort(dim=1).values


def _rows(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick rows (C, K) of tokens (C, N, F): (C, K, F)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
