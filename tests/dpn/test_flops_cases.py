"""Worked cases of the formula, token counts layer by layer, with the published values they reproduce."""

import json
from pathlib import Path

import pytest

from dpn.flops import count_flops

CASES = json.loads((Path(__file__).parents[1] / "golden" / "eval" / "flops.json").read_text())["expected"][
    "cases"
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_formula_gives_every_worked_case_exactly(case):
    sizes = {"hidden_size": case["d"], "intermediate_size": case["m"], "ffn_matrices": case["ffn_matrices"]}
    total = count_flops(case["tokens_per_layer"], **sizes)
    assert type(total) is int
    assert total == case["total_flops"]
    assert round(total / 1e9, 2) == case["gflops_2dp"]


def test_a_share_of_the_tokens_counts_as_a_fraction():
    kept = count_flops([512] * 3 + [0.4 * 512] * 29, hidden_size=4096, intermediate_size=11008)
    assert round(kept / 1e9, 2) == 1192.15  # FastV with K = 3 and R = 0.6, as its row of the paper counts it
