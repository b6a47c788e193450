"""What a checkpoint's reduction and the words of --reduction may disagree about."""

import pytest

from dpn import DpnConfig
from dpn.compare import changed_fields, with_inference_fields
from dpn.parse import parse_fields, parse_reduction


def test_only_what_changes_no_weights_meaning_may_change_after_training():
    saved = DpnConfig.from_fields(layers=(1, 2, 3))
    changed = with_inference_fields(saved, {"eval_choice": "static", "route": ((2, 2),) * 3})
    assert changed.static_choice == (2, 2, 2)
    assert with_inference_fields(saved, {"layers": (1, 2, 3)}) == saved
    with pytest.raises(ValueError, match=r"trained with layers=\(1, 2, 3\)"):
        with_inference_fields(saved, {"layers": (1, 2)})


def test_the_cost_weight_is_a_knob_after_training_where_the_router_predicts_values_only():
    value = DpnConfig.from_fields(preset="value", mu=0.5)
    assert with_inference_fields(value, {"mu": 0.1}).mu == 0.1
    policy = DpnConfig.from_fields(mu=0.5)
    assert with_inference_fields(policy, {"mu": 0.5}) == policy
    with pytest.raises(ValueError, match=r"mu=0.1 is a knob at inference for objective=value only"):
        with_inference_fields(policy, {"mu": 0.1})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("layers=8,16", r"layers=\(8, 16, 24\), so it can't run with layers=\(8, 16\)"),
        ("kernels=1x1,2x2", r"kernels=\(\(1, 1\), \(1, 2\), \(2, 2\)\), so it can't run with kernels="),
        ("preset=policy", "preset=paper, so it can't run with preset=policy"),
        ("router_source=last", "router_source=token, so it can't run with router_source=last"),
        ("router_placement=first_turn", "router_placement=every_turn, so it can't run with"),
        ("objective=value", "objective=hinge, so it can't run with objective=value"),
        ("gate=none", "gate=probability, so it can't run with gate=none"),
        ("position_mode=keep", "position_mode=renumber, so it can't run with position_mode=keep"),
        ("pooling=avg", "pooling=max, so it can't run with pooling=avg"),
        ("loss_weight=1.0", "loss_weight=0.01, so it can't run with loss_weight=1.0"),
        ("router_bias=0,1", "router_bias needs one number per kernel"),
        ("eval_choice=static route=2x2", "route must name one of the kernels .* for each of the 3 DPE"),
    ],
)
def test_every_training_time_field_on_the_command_line_must_agree_with_the_checkpoint(words, message):
    saved = parse_reduction(["dpn", "preset=paper"])
    with pytest.raises(ValueError, match=message):
        with_inference_fields(saved, parse_fields(["dpn", *words.split()])[1])


def test_fields_that_agree_with_the_checkpoint_may_be_named():
    saved = parse_reduction(["dpn", "preset=paper"])
    words = ["dpn", "preset=paper", "layers=8,16,24", "gate=probability"]
    assert with_inference_fields(saved, parse_fields(words)[1]) == saved


@pytest.mark.parametrize(
    "fields",
    [
        {"train_choice": "static", "eval_choice": "static", "route": ((2, 2),) * 3},
        {"train_choice": "random", "eval_choice": "random", "objective": "hinge"},
        {"train_choice": "random", "eval_choice": "random"},
    ],
)
def test_a_router_that_was_taught_nothing_is_not_asked(fields):
    saved = DpnConfig.from_fields(**fields)
    with pytest.raises(ValueError, match=r"eval_choice=argmax asks the router, but .* teaches it nothing"):
        with_inference_fields(saved, {"eval_choice": "argmax"})


@pytest.mark.parametrize("choice", ["argmax", "random"])
def test_a_fixed_route_goes_where_a_router_may_choose_again(choice):
    saved = DpnConfig.from_fields(eval_choice="static", route=((2, 2),) * 3)
    assert with_inference_fields(saved, {"eval_choice": choice}) == DpnConfig.from_fields(eval_choice=choice)


def test_a_router_taught_on_random_routes_may_choose():
    saved = DpnConfig.from_fields(
        preset="value", train_choice="random", eval_choice="random", uniform_share=0.0
    )
    assert with_inference_fields(saved, {"eval_choice": "argmax"}).eval_choice == "argmax"


def test_all_fields_that_differ_are_listed():
    saved, asked = DpnConfig.from_fields(mu=0.5), DpnConfig.from_fields(mu=0.25, layers=(1, 2))
    assert changed_fields(saved, asked) == ["layers=(8, 16, 24) (now (1, 2))", "mu=0.5 (now 0.25)"]
    assert changed_fields(saved, saved) == []
