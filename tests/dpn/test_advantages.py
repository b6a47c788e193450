"""How the policy scales advantages, on numbers that can be checked by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from dpn.config import DpnConfig
from dpn.consequences import ENOUGH, Consequences, moments, normalised
from dpn.policy import HORIZON, PolicyObjective
from dpn.routing import Routing

NONE = torch.zeros(3, 1)


def scaled(advantages, weight=None, earlier=None):
    values = torch.tensor(advantages)
    weight = torch.ones(values.shape[1]) if weight is None else torch.tensor(weight)
    earlier = torch.zeros(3, len(values)) if earlier is None else earlier
    return normalised(values, moments(values, weight), earlier)


def test_moments_are_count_total_and_squares_of_the_weighted_samples():
    found = moments(torch.tensor([[1.0, 3.0, 100.0], [2.0, 2.0, 100.0]]), torch.tensor([1.0, 1.0, 0.0]))
    assert found.tolist() == [[2.0, 2.0], [4.0, 4.0], [10.0, 8.0]]


def test_a_single_sample_without_any_before_it_keeps_its_advantage():
    assert scaled([[0.7]]).item() == pytest.approx(0.7)


def test_samples_without_weight_do_not_move_the_others():
    assert scaled([[1.0, 3.0, 100.0]], [1.0, 1.0, 0.0])[0, :2].tolist() == pytest.approx([-1, 1], abs=1e-4)


def test_rows_share_one_scale():
    deviation = math.sqrt((2.0**2 + 1.0**2) / 2)
    expected = [v / deviation for v in (-2, 2, -1, 1)]
    assert scaled([[0.0, 4.0], [0.0, 2.0]]).flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_a_small_batch_is_measured_together_with_earlier_ones():
    earlier = moments(torch.tensor([[-3.0, 1.0, -1.0, 3.0]]), torch.ones(4))  # mean 0, squares 20
    # with 0.5 and -0.5: mean 0, squares 20.5 of 6 samples
    expected = 0.5 / math.sqrt(20.5 / 6)
    assert scaled([[0.5, -0.5]], earlier=earlier)[0].tolist() == pytest.approx(
        [expected, -expected], rel=1e-5
    )
    assert scaled([[0.5, -0.5]])[0].tolist() == pytest.approx([1, -1], rel=1e-5)  # its own scale says nothing
    single = scaled([[5.0]], earlier=earlier)  # mean 1, squares 45 of 5 samples
    assert single.item() == pytest.approx((5 - 1) / math.sqrt(45 / 5 - 1), rel=1e-5)


def test_a_batch_that_is_large_enough_is_measured_alone():
    values = [[float(number) for number in range(ENOUGH)]]
    far = moments(torch.full((1, 100), 1e3), torch.ones(100))
    assert torch.equal(scaled(values, earlier=far), scaled(values))
    assert not torch.equal(scaled([values[0][1:]], earlier=far), scaled([values[0][1:]]))


def step(objective, losses):
    """Judge and observe one micro batch whose routes cost nothing; gives what log p is multiplied with."""
    logits = torch.zeros(len(losses), 3, requires_grad=True)
    chosen = logits.log_softmax(-1)[:, 0]
    routing = Routing(
        ((1, 1), (1, 2), (2, 2)),
        (1,),
        logits=[logits],
        choices=[np.zeros(len(losses), int)],
        log_chosen=[chosen],
        router_hidden=[torch.zeros(len(losses), 4)],
    )
    seen = Consequences(torch.tensor(losses), torch.zeros(2, len(losses)), torch.ones(len(losses)).bool())
    objective(routing, seen).backward()
    objective.observe(seen._replace(advantage_moments=routing.advantage_moments))
    return (logits.grad[:, 1] * 3 * len(losses)).tolist()  # d log p_0 / d logit_1 = -1/3


def make_objective():
    objective = PolicyObjective(DpnConfig.from_fields(mu=0.0, layers=(1,)), features=4)
    nn.init.zeros_(objective.value.weight)
    nn.init.zeros_(objective.value.bias)
    return objective


def test_micro_batches_of_one_learn_on_the_scale_of_those_before():
    objective = make_objective()
    assert step(objective, [2.0]) == pytest.approx([-2.0], rel=1e-4)  # the first one: as it is
    assert step(objective, [4.0]) == pytest.approx([-1.0], rel=1e-4)  # -2 and -4: mean -3, deviation 1
    kept = math.exp(-1 / HORIZON)  # the second one let the first one fade
    count, total, squares = kept + 2, -2 * kept - 4 - 7, 4 * kept + 16 + 49
    expected = (-7 - total / count) / math.sqrt(squares / count - (total / count) ** 2)
    assert step(objective, [7.0]) == pytest.approx([expected], rel=1e-4)


def test_earlier_batches_fade():
    objective = make_objective()
    for _ in range(8 * HORIZON):
        step(objective, [1.0])
    count, total, _ = objective.advantage_moments.flatten().tolist()
    assert count == pytest.approx(HORIZON, rel=0.01)
    assert total / count == pytest.approx(-1.0, rel=1e-3)
    assert step(objective, [1.0]) == pytest.approx([0.0], abs=1e-2)


def test_the_state_stays_in_float32_in_a_half_precision_model():
    objective = make_objective().bfloat16()
    step(objective, [1.0, 2.0])
    assert objective.advantage_moments.dtype == torch.float32
