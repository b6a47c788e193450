"""From a budget to settings: on paper, so without a model."""

import pytest

from llava.bench.compare.budgets import choices, nearest, read_choice
from llava.bench.compare.contenders import is_met
from llava.bench.compare.settings import KNOWN, field_names, read_setting, visual_share, visual_tokens
from llava.bench.shapes import PRESETS
from llava.model.reduction import METHODS, PROJECTORS

SHAPE = PRESETS["7b"]


@pytest.mark.parametrize(
    ("method", "budget", "words"),
    [
        ("truncate", 0.5, ("layer=16",)),
        ("average_pool", 0.25, ("scale=2",)),
        ("resampler", 0.25, ("num_queries=147",)),
    ],
)
def test_the_setting_nearest_to_a_budget_is_taken(method, budget, words):
    best = nearest(choices(method, SHAPE), budget)
    assert best.setting.words == words
    assert is_met(best.share, budget, 0.01)


@pytest.mark.parametrize("method", ["fastv", "pyramid_drop", "random", "dpn", "static"])
@pytest.mark.parametrize("budget", [0.4, 0.5, 0.6])
def test_methods_in_the_decoder_meet_the_papers_budgets_at_7b(method, budget):
    assert is_met(nearest(choices(method, SHAPE), budget).share, budget, 0.03)


def test_a_budget_below_all_that_a_method_can_do_is_not_met():
    best = nearest(choices("dpn", SHAPE), 0.1)
    assert best.setting.route == ("2x2", "2x2", "2x2")
    assert not is_met(best.share, 0.1, 0.03)


def test_places_stand_where_they_were_published_at_the_same_relative_depth():
    assert read_setting("fastv", [], SHAPE).words == ("layer=2",)
    assert read_setting("pyramid_drop", [], SHAPE).words == ("layers=8,16,24",)
    assert read_setting("pyramid_drop", [], PRESETS["default"]).words == ("layers=2,4,6",)
    assert read_setting("fastv", ["layer=5"], SHAPE).words == ("layer=5",)


def test_tokens_per_layer_are_those_of_the_published_example():
    tokens = visual_tokens(read_setting("pyramid_drop", [], SHAPE), SHAPE)
    assert [tokens[layer] for layer in (0, 7, 8, 16, 24, 31)] == [576, 576, 288, 144, 72, 72]
    assert visual_share([576] * 32, SHAPE) == 1
    assert visual_share([288] * 32, SHAPE) < 0.5  # attention is quadratic


@pytest.mark.parametrize("method", [*METHODS, *PROJECTORS])
def test_every_method_of_the_tables_is_known_and_has_a_knob(method):
    assert method in KNOWN
    assert field_names(method)
    if method not in ("prumerge_plus", "visionzip", "downsample"):  # their counts are found by running
        shares = {choice.share for choice in choices(method, PRESETS["tiny"])}
        assert len(shares) > 1


def test_settings_given_in_one_word_are_taken_as_they_are():
    choice = read_choice("fastv layer=3 ratio=0.25", SHAPE)
    assert choice.setting.words == ("layer=3", "ratio=0.25")
    assert choice.share == pytest.approx(visual_share([576] * 3 + [432] * 29, SHAPE))
