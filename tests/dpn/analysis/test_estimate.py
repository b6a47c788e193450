"""Means over seeds against numbers worked out by hand."""

import math

import pytest

from dpn.analysis.estimate import Estimate, estimate


def test_the_interval_is_students_over_seeds():
    # deviation 1 around 2, three values: 4.303 / sqrt(3)
    assert estimate([1.0, 2.0, 3.0]) == Estimate(2.0, pytest.approx(4.303 / math.sqrt(3)))
    assert estimate([5.0]) == Estimate(5.0, None)
    assert str(estimate([5.0])) == "5.00"
    assert str(Estimate(1.234, 0.5)) == "1.23 ± 0.50"


def test_many_seeds_take_the_normal_quantile():
    values = [0.0, 1.0] * 20
    assert estimate(values).half_width == pytest.approx(1.96 * math.sqrt(10 / 39) / math.sqrt(40))


def test_no_value_is_refused():
    with pytest.raises(ValueError, match="needs one value at least"):
        estimate([])
