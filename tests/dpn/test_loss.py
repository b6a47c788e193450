"""Eq. 6 and the policy's loss on numbers that can be checked by hand."""

import math

import numpy as np
import pytest
import torch

from dpn.config import DpnConfig
from dpn.consequences import Consequences
from dpn.dpe import log_of_chosen
from dpn.loss import routing_loss
from dpn.policy import PolicyObjective
from dpn.routing import UNROUTED, Routing

# one DPE, two samples: rates 0.2*0 + 0.3*1 + 0.5*2 = 1.3 and 0.6*0 + 0.3*1 + 0.1*2 = 0.5
PROBABILITIES = torch.tensor([[[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]])
ALL = torch.ones(1, 2, dtype=torch.bool)


def test_the_expected_hinge_is_target_minus_mean_rate():
    config = DpnConfig.from_fields(hinge="expected")
    assert routing_loss(PROBABILITIES, ALL, config).item() == pytest.approx(1.5 - (1.3 + 0.5) / 2)


def test_the_released_hinge_takes_the_most_probable_experts_share_of_its_rate():
    config = DpnConfig.from_fields(preset="paper")
    assert routing_loss(PROBABILITIES, ALL, config).item() == pytest.approx(1.5 - (0.5 * 2 + 0.6 * 0) / 2)


def test_the_hinge_is_zero_above_the_target_and_averaged_over_dpes():
    config = DpnConfig.from_fields(hinge="expected")
    high = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.2, 0.8]]])
    assert routing_loss(high, ALL, config).item() == 0.0
    both = torch.cat([high, PROBABILITIES])
    assert routing_loss(both, ALL.expand(2, 2), config).item() == pytest.approx((0 + 0.6) / 2)


def test_the_released_scope_takes_one_hinge_of_all_dpes_together():
    config = DpnConfig.from_fields(hinge="expected", hinge_scope="all")
    high = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 0.2, 0.8]]])  # rates 2 and 1.8: above the target
    both = torch.cat([high, PROBABILITIES])  # and 1.3 and 0.5
    routed = torch.tensor([[True, True], [False, True]])
    assert routing_loss(both, routed, config).item() == pytest.approx(1.5 - (2.0 + 1.8 + 0.5) / 3, abs=1e-6)


def test_text_only_samples_do_not_count_and_an_empty_batch_keeps_the_graph():
    config = DpnConfig.from_fields(hinge="expected")
    assert routing_loss(PROBABILITIES, torch.tensor([[True, False]]), config).item() == pytest.approx(
        1.5 - 1.3
    )
    probabilities = PROBABILITIES.clone().requires_grad_()
    loss = routing_loss(probabilities, torch.zeros(1, 2, dtype=torch.bool), config)
    loss.backward()
    assert loss.item() == 0.0
    assert probabilities.grad.abs().sum() == 0.0


def make_routing(choices, logits):
    choice, hidden = np.array(choices), torch.zeros(len(choices), 4)
    return Routing(
        ((1, 1), (1, 2), (2, 2)),
        (1,),
        logits=[logits],
        choices=[choice],
        log_chosen=[log_of_chosen(logits.softmax(-1), choice)],
        router_hidden=[hidden],
    )


def consequences(losses, costs, routed=None):
    """What two stages led to; the first one is never pooled and costs a quarter of the dense FLOPs."""
    stages = torch.tensor([[0.25] * len(costs), [cost - 0.25 for cost in costs]])
    return Consequences(torch.tensor(losses), stages, torch.tensor(routed or [True] * len(costs)))


def test_the_policy_loss_is_minus_advantage_times_log_probability_plus_the_values_error():
    config = DpnConfig.from_fields(mu=0.5)
    objective = PolicyObjective(config, features=4)
    torch.nn.init.zeros_(objective.value.weight)
    torch.nn.init.constant_(objective.value.bias, -1.0)
    seen = consequences([1.0, 2.0], [0.4, 1.0])
    loss = objective(make_routing([2, 0], torch.zeros(2, 3)), seen)
    rewards = [-(1.0 + 0.5 * 0.4), -(2.0 + 0.5 * 1.0)]  # -1.2 and -2.5: normalised advantages 1 and -1
    expected_policy = -(1 * -math.log(3) - 1 * -math.log(3)) / 2
    expected_value = sum((-1.0 - reward) ** 2 for reward in rewards) / 4
    assert loss.item() == pytest.approx(expected_policy + expected_value, abs=1e-5)


def test_the_policy_makes_the_better_route_likelier():
    config = DpnConfig.from_fields()
    objective = PolicyObjective(config, features=4)
    logits = torch.zeros(2, 3, requires_grad=True)
    seen = consequences([0.1, 2.0], [0.4, 0.4])
    objective(make_routing([1, 1], logits), seen).backward()
    assert logits.grad[0, 1] < 0 < logits.grad[1, 1]


def test_samples_left_alone_have_no_say():
    config = DpnConfig.from_fields()
    objective = PolicyObjective(config, features=4)
    logits = torch.zeros(2, 3, requires_grad=True)
    seen = consequences([0.1, 9.0], [0.4, 1.0], [True, False])
    objective(make_routing([1, UNROUTED], logits), seen).backward()
    assert logits.grad[1].abs().sum() == 0


def test_the_running_state_keeps_its_precision_in_a_half_precision_model():
    objective = PolicyObjective(
        DpnConfig.from_fields(mu=0.5, budget=0.999, mu_step=0.01), features=4
    ).bfloat16()
    seen = consequences([1.0, 1.0], [1.0, 1.0])
    assert torch.isfinite(objective(make_routing([1, 1], torch.zeros(2, 3)), seen))
    objective.observe(seen)
    assert objective.mu.item() == pytest.approx(0.5 + 0.01 * 0.001, abs=1e-7)
    assert objective.value.weight.dtype == torch.bfloat16


def test_routing_losses_are_computed_in_float32_under_autocast():
    objective = PolicyObjective(DpnConfig.from_fields(), features=4)
    seen = consequences([1.0, 1.0], [1.0, 1.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objective(make_routing([1, 1], torch.zeros(2, 3)), seen).dtype == torch.float32
        assert routing_loss(PROBABILITIES, ALL, DpnConfig.from_fields()).dtype == torch.float32


def test_the_dual_step_moves_mu_towards_the_budget_and_not_below_zero():
    objective = PolicyObjective(DpnConfig.from_fields(budget=0.4, mu=0.5, mu_step=0.1), features=4)
    over = consequences([1.0, 1.0], [1.0, 0.8])
    objective.observe(over)
    assert objective.mu.item() == pytest.approx(0.5 + 0.1 * 0.5)
    under = consequences([1.0, 1.0], [0.0, 0.0])
    for _ in range(20):
        objective.observe(under)
    assert objective.mu.item() == 0.0


def test_losses_beyond_the_windows_99th_percentile_are_clipped_once_it_is_full():
    objective = PolicyObjective(DpnConfig.from_fields(), features=4)
    loss = torch.tensor([50.0])
    assert objective.clipped(loss).item() == 50.0
    objective.observe(consequences([1.0] * 1024, [1.0] * 1024))
    assert objective.clipped(loss).item() == 1.0
