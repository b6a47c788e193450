"""Exploration and credit of the policy, on numbers that can be checked by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dpn.config import DpnConfig
from dpn.consequences import Consequences
from dpn.dpe import log_of_chosen
from dpn.policy import PolicyObjective
from dpn.routing import UNROUTED, Routing
from tests.dpn.pyramids import make_batch, make_config, make_model, make_sample

# two DPEs: stages cost 0.2, then 0.4 or 0.1, then 0.3 or 0.1
STAGES = torch.tensor([[0.2, 0.2], [0.4, 0.1], [0.3, 0.1]])


def make_routing(choices, logits):
    listed = [np.array(choice) for choice in choices]
    return Routing(
        ((1, 1), (1, 2), (2, 2)),
        (1, 2),
        logits=logits,
        choices=listed,
        log_chosen=[
            log_of_chosen(one.softmax(-1), choice) for one, choice in zip(logits, listed, strict=True)
        ],
        router_hidden=[torch.zeros(2, 4) for _ in listed],
    )


def make_objective(**fields):
    objective = PolicyObjective(DpnConfig.from_fields(layers=(1, 2), **fields), features=4)
    nn.init.zeros_(objective.value.weight)
    nn.init.zeros_(objective.value.bias)
    return objective


def seen(losses=(0.0, 0.0)):
    return Consequences(torch.tensor(losses), STAGES, torch.tensor([True, True]))


def test_the_cost_behind_a_dpe_is_that_of_the_stages_it_can_still_change():
    assert torch.allclose(seen().cost_behind(), torch.tensor([[0.7, 0.2], [0.3, 0.1]]))
    assert torch.allclose(seen().cost, torch.tensor([0.9, 0.4]))


def test_with_credit_later_a_dpe_answers_for_the_cost_behind_it_only():
    logits = [torch.zeros(2, 3, requires_grad=True) for _ in range(2)]
    loss = make_objective(mu=1.0, credit="later")(make_routing([[0, 2], [0, 1]], logits), seen())
    # rewards: -0.7, -0.2 at the first DPE and -0.3, -0.1 at the second; deviations 0.25 and 0.1
    deviation = math.sqrt((0.25**2 + 0.1**2) / 2)
    loss.backward()
    for gradient, half in zip((one.grad for one in logits), (0.25, 0.1), strict=True):
        advantage = half / deviation  # of the second sample; the first one's is its negative
        assert gradient[0, 0].item() == pytest.approx(advantage * (1 - 1 / 3) / 2, rel=1e-4)
    squares = (0.7**2 + 0.2**2 + 0.3**2 + 0.1**2) / 2  # the values' mean error over DPEs, all predicted 0
    assert loss.item() == pytest.approx(squares / (2 * 2), abs=1e-5)


def test_with_credit_for_the_route_all_dpes_share_one_advantage():
    logits = [torch.zeros(2, 3, requires_grad=True) for _ in range(2)]
    make_objective(mu=1.0)(make_routing([[0, 2], [0, 1]], logits), seen()).backward()
    first, second = (one.grad[0] for one in logits)
    assert torch.equal(first, second)
    assert first[0].item() == pytest.approx((1 - 1 / 3) / 2, rel=1e-4)


def test_every_dpe_has_a_value_of_its_own_router_with_credit_later():
    objective = make_objective(credit="later")
    objective.value.weight.data = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    routing = make_routing([[0, 0], [0, 0]], [torch.zeros(2, 3)] * 2)
    routing.router_hidden = [torch.full((2, 4), 3.0), torch.full((2, 4), 5.0)]
    assert objective._value(routing).tolist() == [[3.0, 3.0], [5.0, 5.0]]


def test_the_entropy_bonus_falls_to_nothing_over_the_exploration_steps():
    objective = make_objective(mu=0.0, entropy_weight=0.1, exploration_steps=4)
    routing = make_routing([[0, UNROUTED], [0, UNROUTED]], [torch.zeros(2, 3)] * 2)
    bonuses = []
    for _ in range(6):
        bonuses.append(-objective(routing, seen()).item())
        objective.observe(seen())
    assert bonuses == pytest.approx([0.1 * math.log(3) * f for f in (1, 0.75, 0.5, 0.25, 0, 0)], abs=1e-6)


def test_costs_warm_up_before_they_count_in_full():
    objective = make_objective(mu=2.0, cost_warmup_steps=4)
    weights, losses = [], []
    for _ in range(6):
        weights.append(objective.cost_weight().item())
        losses.append(objective(make_routing([[0, 0], [0, 0]], [torch.zeros(2, 3)] * 2), seen()).item())
        objective.observe(seen())
    assert weights == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    squares = (0.9**2 + 0.4**2) / 2  # mean of squared costs; the predicted reward is 0
    regression = [weight**2 * squares / 2 for weight in weights]
    assert losses == pytest.approx(regression, abs=1e-5)  # equal choices: the policy's term vanishes


def test_the_dual_step_waits_for_the_end_of_the_warm_up():
    objective = make_objective(mu=0.5, cost_warmup_steps=2, budget=0.1, mu_step=1.0)
    values = []
    for _ in range(4):
        objective.observe(seen())
        values.append(objective.mu.item())
    assert values == pytest.approx([0.5, 0.5, 1.05, 1.6])  # the mean cost is 0.65


def peaked_model(**fields):
    """A model in training whose routers are sure of the first expert."""
    model = make_model(make_config(layers=(1,), **fields), num_hidden_layers=2).train()
    nn.init.zeros_(model.reducer.routers[0].predictor.weight)
    return model


def test_the_uniform_share_is_drawn_and_counted_in_the_choices_probability():
    model = peaked_model(uniform_share=0.3, router_bias=(50.0, 0.0, 0.0))
    batch = make_batch([make_sample(1, [(2, 2)], 3)] * 200)
    torch.manual_seed(0)
    routing = model(**batch).routing
    share = np.bincount(routing.choices[0], minlength=3) / 200
    assert share == pytest.approx([0.8, 0.1, 0.1], abs=0.07)
    chosen = torch.tensor([0.8, 0.1, 0.1])[torch.from_numpy(routing.choices[0])]
    assert torch.allclose(routing.log_chosen[0].exp(), chosen, atol=1e-5)


def test_exploration_ends_after_its_steps_and_never_happens_at_inference():
    model = peaked_model(uniform_share=0.9, exploration_steps=1, router_bias=(50.0, 0.0, 0.0))
    batch = make_batch([make_sample(1, [(2, 2)], 3)] * 40)
    assert (model(**batch).routing.choices[0] != 0).any()
    assert (model.eval()(**batch).routing.choices[0] == 0).all()
    model.train().reducer.policy.observe(seen())
    assert (model(**batch).routing.choices[0] == 0).all()


def test_uniform_draws_keep_to_what_is_allowed():
    model = peaked_model(uniform_share=0.9, min_tokens=2, router_bias=(50.0, 0.0, 0.0))
    batch = make_batch([make_sample(1, [(2, 2)], 3)] * 60)
    assert set(model(**batch).routing.choices[0]) == {0, 1}  # 2x2 would leave a single token
