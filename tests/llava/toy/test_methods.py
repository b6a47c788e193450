"""The table of methods: each is a configuration that training and inference accept."""

from pathlib import Path

import pytest

from llava.model.reduction import PROJECTORS, parse_reduction
from llava.toy.methods import METHODS, own_method, reduction_words

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_trained_and_run(name):
    method = METHODS[name]
    parse_reduction(method.training_words())
    for words in method.points.values():
        parse_reduction(words.split())
    assert method.projector in ("", *PROJECTORS)
    assert not method.ablation or (ROOT / f"scripts/ablations/{method.ablation}.env").is_file()
    ways = [method.reduction, method.ablation, method.projector]
    assert sum(map(bool, ways)) == (name != "dense")


def test_points_of_all_methods_have_names_of_their_own():
    points = [point for name, method in METHODS.items() for point in (method.points or {name: ""})]
    assert len(set(points)) == len(points)


def test_words_without_a_method_are_dpns_at_a_quarter_half_and_three_quarters_of_the_depth():
    assert reduction_words("mu=1") == ("dpn", "layers=2,4,6", "mu=1")
    assert reduction_words("layers=1,2,3 mu=1") == ("dpn", "layers=1,2,3", "mu=1")
    assert reduction_words("fastv layer=1") == ("fastv", "layer=1")


def test_a_router_of_values_is_run_at_several_cost_weights():
    assert own_method("mine", "preset=value").points["mine@0.5"] == "dpn mu=0.5"
    assert own_method("mine", "mu=1").points == {}


def test_the_policy_is_that_of_the_small_worlds_recipe():
    recipe = (ROOT / "scripts/presets/toy.env").read_text(encoding="utf-8")
    assert f'"${{REDUCTION:={METHODS["policy"].reduction}}}"' in recipe
