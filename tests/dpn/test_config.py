"""Configurations say what is wrong with them, and survive config.json."""

import json

import pytest

from dpn.config import DpnConfig
from dpn.methods import from_dict
from dpn.parse import expert_indices, parse_reduction, parse_route


def test_the_paper_preset_is_the_authors_behaviour_with_the_papers_weight():
    config = parse_reduction(["dpn", "preset=paper"])
    assert config.layers == (8, 16, 24)
    assert config.kernels == ((1, 1), (1, 2), (2, 2))
    assert (config.router_source, config.router_placement, config.temperature) == (
        "token",
        "every_turn",
        10.0,
    )
    assert (config.gate, config.hinge, config.objective, config.edge) == (
        "probability",
        "chosen",
        "hinge",
        "floor",
    )
    assert (config.min_tokens, config.skip_below) == (18, 16)
    assert (config.hinge_scope, config.router, config.router_gradient) == ("all", "mlp", "full")
    assert (config.rates, config.target, config.loss_weight) == ((0.0, 1.0, 2.0), 1.5, 0.01)


def test_the_policy_preset_reads_the_last_prompt_token_and_adds_nothing_to_the_stream():
    config = parse_reduction(["dpn"])
    assert (config.preset, config.router_source, config.gate) == ("policy", "last", "none")
    assert (config.objective, config.mu, config.router_lr_scale) == ("policy", 1.0, 6.0)


def test_the_value_preset_explores_and_reads_what_the_policy_reads():
    config = parse_reduction(["dpn", "preset=value"])
    assert (config.preset, config.objective, config.router_source, config.gate) == (
        "value",
        "value",
        "last",
        "none",
    )
    assert (config.temperature, config.uniform_share, config.mu) == (0.1, 0.1, 0.5)


def test_fields_given_win_over_the_preset_and_rates_follow_the_kernels():
    config = parse_reduction(["dpn", "preset=paper", "kernels=1x1,2x2,4x4", "temperature=2", "layers=4,8,12"])
    assert config.rates == (0.0, 2.0, 4.0)
    assert config.temperature == 2.0
    assert config.layers == (4, 8, 12)


@pytest.mark.parametrize("words", [[], ["none"]])
def test_no_reduction_is_none(words):
    assert parse_reduction(words) is None


def test_a_configuration_survives_json():
    config = parse_reduction(["dpn", "preset=paper", "train_choice=static", "route=2x2,1x2,1x1"])
    assert from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dpm"], "unknown reduction 'dpm'; did you mean dpn"),
        (["dpn", "kernel=1x1"], "no field 'kernel'; did you mean kernels"),
        (["dpn", "layers=0,8"], r"layers must increase and start at 1 or later, got \(0, 8\)"),
        (["dpn", "layers=8,8"], "layers must increase"),
        (["dpn", "layers=8,x"], "can't read 'x'|can't read '8,x'"),
        (["dpn", "kernels=2x2"], "kernels must name two or more"),
        (["dpn", "kernels=1x1,2"], "written ROWSxCOLUMNS"),
        (["dpn", "gate=on"], "gate must be one of none, probability, straight_through, got 'on'"),
        (["dpn", "preset=papr"], "preset must be one of"),
        (["dpn", "train_choice=static"], "a route goes with train_choice=static"),
        (["dpn", "route=1x1,1x1,1x1"], "a route goes with train_choice=static"),
        (["dpn", "preset=paper", "budget=0.4"], "needs objective=policy"),
        (["dpn", "temperature=nan"], "temperature must be finite"),
        (["dpn", "route=4x4,1x1,1x1"], "route must name one of the kernels"),
        (["dpn", "route=2x2"], "for each of the 3 DPE"),
        (["dpn", "temperature=0"], "temperature must be positive"),
        (["dpn", "budget=2"], "budget is a share"),
        (["dpn", "uniform_share=1"], "uniform_share is a share of the choices from 0 to below 1"),
        (["dpn", "preset=paper", "uniform_share=0.1"], "uniform_share=0.1 needs objective=policy or value"),
        (["dpn", "uniform_share=0.1", "train_choice=gumbel"], "needs train_choice=sample"),
        (["dpn", "preset=value", "budget=0.4"], "budget=0.4 needs objective=policy"),
        (["dpn", "preset=value", "credit=later"], "credit=later needs objective=policy"),
        (["dpn", "preset=value", "gate=probability"], "neither the routing loss nor a gate"),
        (["dpn", "preset=value", "loss_weight=0.1"], "neither the routing loss nor a gate"),
        (["dpn", "exploration_steps=-1"], "exploration_steps must not be negative"),
        (["dpn", "router=big"], "router must be one of mlp, linear"),
        (["dpn", "kernels=0x1,1x1"], "sizes of at least 1x1"),
        (["dpn", "rates=0,nan,1"], "rates must be finite"),
        (["dpn", "router_bias=nan,0,0"], "router_bias must be finite"),
        (["dpn", "preset=paper", "mu=0.3"], "mu=0.3 needs objective=policy or value"),
        (["dpn", "preset=value", "mu_step=0.5"], "mu_step=0.5 needs objective=policy"),
        (["dpn", "exploration_steps=9"], "which are both 0; give one of them"),
        (["dpn", "preset"], "FIELD=VALUE"),
        (["dpn", "mu=1", "mu=2"], "names mu twice"),
        (["dpn", "rates=0,1"], r"rates needs one number per kernel \(3\)"),
    ],
)
def test_a_bad_word_is_refused_with_what_is_known(words, message):
    with pytest.raises(ValueError, match=message):
        parse_reduction(words)


def test_a_config_of_another_version_is_refused():
    with pytest.raises(ValueError, match="unknown fields"):
        from_dict({**DpnConfig().to_dict(), "colour": 1})
    with pytest.raises(ValueError, match="must be an object with a method, found 'dpn'"):
        from_dict("dpn")
    with pytest.raises(ValueError, match="names the method None"):
        from_dict({"pooling_type": "adaptive"})


def test_routes_are_written_as_on_the_command_line():
    assert parse_route("1x2,2x2") == ((1, 2), (2, 2))
    assert expert_indices([["1x1", "2x2"], ["1x2", "1x2"]], ((1, 1), (1, 2), (2, 2))).tolist() == [
        [0, 2],
        [1, 1],
    ]
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        expert_indices([["4x4"]], ((1, 1), (1, 2), (2, 2)))
