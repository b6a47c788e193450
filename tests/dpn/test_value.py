"""The value objective on numbers that can be checked by hand, and as a budget knob."""

import numpy as np
import pytest
import torch
from torch import nn

from dpn.config import DpnConfig
from dpn.consequences import Consequences
from dpn.dpe import DynamicPyramid
from dpn.flops import stage_cost, visual_cost
from dpn.routing import UNROUTED, Routing
from dpn.value import StageCosts, ValueObjective, loss_increase
from tests.dpn.pyramids import NUM_LAYERS, make_batch, make_config, make_model, make_sample

SIZES = {"hidden_size": 32, "intermediate_size": 48}


def make_routing(choices, outputs):
    """One list of choices and one (B, E) tensor of router outputs per DPE."""
    hidden = [torch.zeros(len(choice), 4) for choice in choices]
    return Routing(
        ((1, 1), (1, 2), (2, 2)),
        tuple(range(1, len(choices) + 1)),
        choices=[np.array(choice) for choice in choices],
        outputs=outputs,
        router_hidden=hidden,
    )


def make_objective(bias=0.0):
    objective = ValueObjective(DpnConfig.from_fields(preset="value"), features=4)
    nn.init.zeros_(objective.value.weight)
    nn.init.constant_(objective.value.bias, bias)
    return objective


def consequences(losses, routed=None):
    stages = torch.full((3, len(losses)), 0.2)
    return Consequences(torch.tensor(losses), stages, torch.tensor(routed or [True] * len(losses)))


def test_the_increase_of_an_expert_is_its_difference_to_the_first_one():
    assert loss_increase(torch.tensor([[0.5, 0.7, 2.0]])).tolist() == [pytest.approx([0.0, 0.2, 1.5])]


def test_the_prediction_is_the_dense_loss_plus_the_increases_along_the_route():
    outputs = [torch.tensor([[1.0, 1.5, 3.0]] * 2), torch.tensor([[0.0, 0.25, 0.5]] * 2)]
    routing = make_routing([[2, 0], [1, UNROUTED]], outputs)
    loss = make_objective(bias=0.1)(routing, consequences([3.0, 0.3]))
    predicted = [0.1 + 2.0 + 0.25, 0.1 + 0.0]  # the second sample kept everything, then was left alone
    expected = ((predicted[0] - 3.0) ** 2 + (predicted[1] - 0.3) ** 2) / (2 * 2)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_only_what_was_chosen_and_routed_is_corrected():
    outputs = torch.zeros(3, 3, requires_grad=True)
    routing = make_routing([[1, 2, UNROUTED]], [outputs])
    make_objective()(routing, consequences([1.0, 9.0, 9.0], [True, False, False])).backward()
    assert outputs.grad[0].tolist() == pytest.approx([1.0, -1.0, 0.0])  # loss 1 was predicted as 0
    assert outputs.grad[1:].abs().sum() == 0


def test_a_batch_without_routes_costs_nothing_and_keeps_the_graph():
    outputs = torch.zeros(2, 3, requires_grad=True)
    loss = make_objective()(
        make_routing([[UNROUTED] * 2], [outputs]), consequences([1.0, 2.0], [False, False])
    )
    loss.backward()
    assert loss.item() == 0.0
    assert outputs.grad is not None


def test_the_cost_of_an_expert_is_its_stages_share_of_eq_8():
    costs = StageCosts(layers=(1, 2, 4), num_layers=NUM_LAYERS, **SIZES)
    given = costs.of_experts(1, np.array([[16, 8, 4]]), np.array([16]))

    def flops(n):
        return 4 * n * 32**2 + 2 * n**2 * 32 + 2 * n * 32 * 48

    assert given[0].tolist() == pytest.approx([2 / 5 * flops(n) / flops(16) for n in (16, 8, 4)], rel=1e-6)


def test_the_stages_of_a_route_cost_what_the_route_costs():
    per_stage = [np.array([16, 0]), np.array([8, 0]), np.array([8, 0]), np.array([2, 0])]
    stages = stage_cost(per_stage, (1, 2, 4), 5, **SIZES)
    layers = np.repeat(np.stack(per_stage, 1), [1, 1, 2, 1], axis=1)
    assert stages.shape == (4, 2)
    assert stages.sum(0).tolist() == pytest.approx(visual_cost(layers, **SIZES).tolist())
    assert stages[:, 1].tolist() == pytest.approx([0.2, 0.2, 0.4, 0.2])  # text only: as dense


def trained_model(outputs, **fields):
    """A model whose routers predict `outputs` for every sample: their predictors read a constant."""
    model = make_model(make_config(preset="value", **fields))
    for router in model.reducer.routers:
        nn.init.zeros_(router.norm.weight)
        nn.init.ones_(router.norm.bias)
        nn.init.constant_(router.hidden.weight, 1.0)  # every feature is gelu(D) = D = 32
        features = router.predictor.in_features
        router.predictor.weight.data = torch.tensor(outputs)[:, None].repeat(1, features) / (32 * features)
    return model


def routes_of(model, **arguments):
    with torch.no_grad():
        return model(**make_batch([make_sample(3, [(4, 4)], 4)]), **arguments).routing


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.5, 100.0])
def test_the_choice_is_the_smallest_increase_plus_weighted_cost(mu):
    increase = (0.0, 0.05, 0.2)
    routing = routes_of(trained_model(list(increase), mu=mu))
    expected, count = [], 16
    for length in (1, 2, 1):  # layers of the stages behind the DPEs, of 5
        left = (count, -(-count // 2), max(1, count // 4))
        totals = [q + mu * length / 5 * share(n) for q, n in zip(increase, left, strict=True)]
        best = int(np.argmin(totals))
        expected.append(("1x1", "1x2", "2x2")[best])
        count = left[best]
    assert routing.route_names(0) == tuple(expected)


def test_a_higher_cost_weight_never_makes_a_route_dearer():
    model = trained_model([0.0, 0.05, 0.2], mu=0.0)
    shifts = [routes_of(model, router_shift=torch.tensor([mu])) for mu in (0.0, 0.5, 1.5, 100.0)]
    tokens = [sum(int(count[0]) for count in routing.visual_counts) for routing in shifts]
    assert tokens == sorted(tokens, reverse=True)
    assert len(set(tokens)) > 2


def share(n):
    return (4 * n * 32**2 + 2 * n**2 * 32 + 2 * n * 32 * 48) / (
        4 * 16 * 32**2 + 2 * 16**2 * 32 + 2 * 16 * 32 * 48
    )


def test_mu_is_a_knob_of_one_checkpoint_and_a_shift_is_added_to_it():
    model = trained_model([0.0, 0.05, 0.2], mu=0.25)
    shifted = routes_of(model, router_shift=torch.tensor([1.75]))
    retuned = trained_model([0.0, 0.05, 0.2], mu=2.0)
    assert shifted.route_names(0) == routes_of(retuned).route_names(0) != routes_of(model).route_names(0)


def test_nothing_is_known_at_first_so_that_only_costs_count():
    model = make_model(make_config(preset="value", mu=0.5))
    assert all(router.predictor.weight.abs().max() == 0 for router in model.reducer.routers)
    assert routes_of(model).route_names(0)[:2] == ("2x2", "2x2")


def test_regression_learns_which_expert_hurts():
    model = make_model(make_config(preset="value", mu=0.2, layers=(1,)), num_hidden_layers=2).train()
    optimizer = torch.optim.Adam(model.reducer.parameters(), lr=0.02)
    batch = make_batch([make_sample(1, [(2, 2)], 3, seed=seed) for seed in range(16)])
    for _ in range(40):
        routing = model(**batch).routing
        hurt = torch.from_numpy(routing.choices[0] == 2).float()
        seen = Consequences(0.3 + hurt, torch.zeros(2, 16), torch.ones(16, dtype=torch.bool))
        loss = model.reducer.policy(routing, seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (choice,) = model.eval()(**batch).routing.choices
    assert (choice == 1).mean() > 0.8  # 2x2 is cheaper still, but hurts


def test_a_pyramid_without_costs_is_refused():
    with pytest.raises(ValueError, match="objective=value weighs costs"):
        DynamicPyramid(make_config(preset="value"), 32)
