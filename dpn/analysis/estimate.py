"""A mean over seeds with its interval."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

_T95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
    2.045,
    2.042,
)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""
_NORMAL_95 = 1.96


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float
    half_width: float | None
    """Of the 95 % interval; None for a single seed."""

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.half_width is None else f" ± {self.half_width:.2f}")


def estimate(values: Sequence[float]) -> Estimate:
    """Give the mean and the half width of its 95 % interval.

    Raises:
        ValueError: no value.

    >>> estimate([1.0, 3.0])
    Estimate(mean=2.0, half_width=12.706)
    """
    if not values:
        raise ValueError("a mean needs one value at least, got none")
    if len(values) == 1:
        return Estimate(statistics.fmean(values), None)
    freedom = len(values) - 1
    quantile = _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL_95
    return Estimate(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(len(values)))
