"""What a DPE reads and how it chooses."""

import numpy as np
import pytest
import torch

from dpn.dpe import log_of_chosen
from tests.dpn.pyramids import make_batch, make_config, make_model, make_sample


def run(model, sample=None, **arguments):
    sample = sample or make_sample(3, [(4, 4)], 4)
    return model(**make_batch([sample]), **arguments)


@pytest.mark.parametrize(
    ("kernels", "left"),
    [("2x1", [16, 8, 8, 8]), ("4x4", [16, 1, 1, 1]), ("1x4", [16, 4, 4, 4]), ("3x3", [16, 4, 4, 4])],
)
def test_any_kernel_pools_rows_by_columns(kernels, left):
    kernel = tuple(int(size) for size in kernels.split("x"))
    config = make_config(kernels=((1, 1), kernel), eval_choice="static", route=(kernel, (1, 1), (1, 1)))
    routing = run(make_model(config)).routing
    assert [int(count[0]) for count in routing.visual_counts] == left


@pytest.mark.parametrize("layers", [(1,), (4,), (1, 2, 3, 4), (2, 4)])
def test_dpes_stand_in_front_of_any_increasing_layers(layers):
    config = make_config(layers=layers, eval_choice="static", route=((1, 2),) * len(layers))
    routing = run(make_model(config)).routing
    assert [int(count[0]) for count in routing.visual_counts] == [16, 8, 4, 4, 4][: len(layers) + 1]


def test_average_pooling_and_maximum_pooling_differ():
    states = [
        run(make_model(make_config(pooling=pooling)), routes=torch.tensor([[2, 0, 0]])).last_hidden_state
        for pooling in ("max", "avg")
    ]
    assert states[0].shape == states[1].shape
    assert not torch.allclose(states[0], states[1])


@pytest.mark.parametrize("gradient", ["full", "stopped"])
def test_a_stopped_router_gradient_leaves_the_state_it_reads_alone(gradient):
    model = make_model(make_config(router_gradient=gradient)).train()
    batch = make_batch([make_sample(3, [(4, 4)], 4)])
    batch["inputs_embeds"].requires_grad_()
    model(**batch).routing.logits[0].square().sum().backward()
    reached = batch["inputs_embeds"].grad
    assert (reached is not None and bool(reached.abs().sum() > 0)) == (gradient == "full")
    assert model.reducer.routers[0].predictor.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("objective", ["hinge", "policy", "value"])
@pytest.mark.parametrize("source", ["last", "both"])
def test_a_linear_router_is_one_map_and_trains_with_every_objective(objective, source):
    config = make_config(router="linear", objective=objective, router_source=source)
    model = make_model(config).train()
    width = 64 if source == "both" else 32
    assert [tuple(weight.shape) for weight in model.reducer.routers[0].parameters()] == [(3, width)]
    routing = run(model).routing
    assert routing.router_hidden[0].shape == (1, width)
    if model.reducer.policy is not None:
        assert model.reducer.policy.value.in_features == width


def test_random_routes_visit_every_expert():
    model = make_model(make_config(objective="hinge", eval_choice="random"))
    torch.manual_seed(0)
    batch = make_batch([make_sample(1, [(4, 4)], 3)] * 90)
    (choices, *_) = model(**batch).routing.choices
    assert np.bincount(choices, minlength=3) == pytest.approx([30] * 3, abs=15)


def test_gumbel_draws_follow_the_probabilities_and_gate_with_their_own_weights():
    model = make_model(
        make_config(layers=(1,), train_choice="gumbel", gate="probability", router_bias=(2.0, 0.0, 0.0)),
        num_hidden_layers=2,
    ).train()
    torch.nn.init.zeros_(model.reducer.routers[0].predictor.weight)
    torch.manual_seed(0)
    batch = make_batch([make_sample(1, [(2, 2)], 3)] * 400)
    share = np.bincount(model(**batch).routing.choices[0], minlength=3) / 400
    expected = torch.tensor([2.0, 0.0, 0.0]).softmax(-1).tolist()
    assert share == pytest.approx(expected, abs=0.06)


def test_a_forced_kernel_that_would_drop_the_image_is_refused_and_a_static_one_leaves_it():
    thin = make_sample(3, [(4, 1)], 4)
    with pytest.raises(ValueError, match=r"routes force 1x2 on sample 0.* nothing of one of its images"):
        run(make_model(make_config(edge="floor")), thin, routes=torch.tensor([[1, 0, 0]]))
    static = make_model(make_config(edge="floor", eval_choice="static", route=((1, 2), (1, 1), (1, 1))))
    assert run(static, thin).routing.route_names(0) == ("1x1", "1x1", "1x1")


def test_no_kernel_drops_one_of_several_images():
    both = make_sample(3, [(4, 4), (1, 4)], 4)
    model = make_model(make_config(edge="floor", router_bias=(0.0, 0.0, 99.0)))
    assert run(model, both).routing.route_names(0) == ("1x2", "1x2", "1x1")
    with pytest.raises(ValueError, match=r"routes force 2x2 on sample 0.* nothing of one of its images"):
        run(model, both, routes=torch.tensor([[2, 0, 0]]))


def test_a_forced_expert_of_no_probability_passes_a_straight_through_gate_unchanged():
    fields = {"objective": "hinge", "router_bias": (0.0, 0.0, 1e4)}
    routes = torch.tensor([[0, 1, 0]])
    plain, gated = (
        run(make_model(make_config(**fields, gate=gate)), routes=routes)
        for gate in ("none", "straight_through")
    )
    assert gated.routing.probabilities[0, 0, 0] == 0
    assert torch.equal(gated.last_hidden_state, plain.last_hidden_state)


def test_a_straight_through_gate_hands_the_probabilitys_gradient_on():
    model = make_model(make_config(objective="hinge", gate="straight_through")).train()
    run(model, routes=torch.tensor([[1, 1, 1]])).last_hidden_state.square().sum().backward()
    assert all(router.predictor.weight.grad.abs().sum() > 0 for router in model.reducer.routers)


@pytest.mark.parametrize(
    ("choice", "logs"),
    [("random", [1 / 3] * 3), ("gumbel", torch.tensor([2.0, 0.0, 0.0]).softmax(-1).tolist())],
)
def test_the_probability_of_a_choice_is_the_one_it_was_drawn_with(choice, logs):
    model = make_model(make_config(train_choice=choice, router_bias=(2.0, 0.0, 0.0))).train()
    for router in model.reducer.routers:
        torch.nn.init.zeros_(router.predictor.weight)
    routing = model(**make_batch([make_sample(1, [(4, 4)], 3)] * 20)).routing
    expected = np.log(logs)[np.stack(routing.choices)]
    assert torch.stack(routing.log_chosen).detach().numpy() == pytest.approx(expected, abs=1e-5)


def test_the_log_probability_of_no_choice_is_zero():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]])
    assert log_of_chosen(probabilities, np.array([1, -1])).tolist() == pytest.approx([np.log(0.25), 0.0])
