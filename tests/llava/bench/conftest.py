"""Tiny benchmark models over one set of weights."""

import pytest

from llava.bench.arguments import parse
from llava.bench.variants import make_variants

TINY = ("--preset", "tiny", "--routes", "2x2,1x2,1x1", "--rounds", "2", "--warmup", "0")


@pytest.fixture(scope="module")
def tiny():
    """Arguments and variants of a prefill on the CPU, by name."""
    _, arguments = parse(["prefill", *TINY, "--device", "cpu"])
    return arguments, {
        variant.name: variant for variant in make_variants(arguments, arguments.shape, "prefill")
    }
