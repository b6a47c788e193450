"""The projector: visual features to visual tokens.

Shapes: N images, T tokens, F feature width, D model width.
"""

import re

from torch import nn


def build_projector(kind: str, feature_width: int, width: int) -> nn.Module:
    """Build `linear`, `mlpNx_gelu` or `identity`, mapping (N, T, F) to (N, T, D).

    The state-dict names are LLaVA's.

    Raises:
        ValueError: an unknown type.
    """
    if kind == "linear":
        return nn.Linear(feature_width, width)
    if kind == "identity":
        return nn.Identity()
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if match is None:
        raise ValueError(
            f"unknown mm_projector_type {kind!r}; known: linear, mlpNx_gelu (N a number), identity"
        )
    layers: list[nn.Module] = [nn.Linear(feature_width, width)]
    for _ in range(1, int(match[1])):
        layers += [nn.GELU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)
