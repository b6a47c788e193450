"""One number moves routes towards cheaper ones, and the walk through them misses none."""

import numpy as np
import pytest
import torch

from dpn.budget import HIGHEST, LOWEST, BudgetTable, Steps, next_shifts
from dpn.routing import UNROUTED, Routing
from tests.dpn.pyramids import GRID, make_batch, make_config, make_model, make_sample

KINDS = [{}, {"preset": "paper", "min_tokens": 0, "skip_below": 0}, {"preset": "value", "mu": 0.3}]


@pytest.fixture
def prompts():
    """Two images, one image, text only."""
    return [
        make_sample(3, [GRID], 4, seed=1),
        make_sample(2, [GRID, GRID], 5, seed=3),
        make_sample(6, [], 3, seed=2),
        make_sample(1, [GRID], 7, seed=4),
    ]


def random_pyramid(fields):
    """Routers that prefer something, also where they start without a preference."""
    model = make_model(make_config(**fields))
    for router in model.reducer.routers:
        torch.nn.init.normal_(router.predictor.weight, std=0.25)
    return model


def routes_at(model, batch, shift):
    shifts = torch.full((len(batch["inputs_embeds"]),), float(shift))
    return np.stack(model(**batch, router_shift=shifts).routing.choices, axis=1)


def walk(model, batch):
    """All (shift, route) of every sample, from the dearest on."""
    shift, found = np.full(len(batch["inputs_embeds"]), LOWEST), [[] for _ in batch["inputs_embeds"]]
    is_open = np.ones(len(shift), bool)
    while is_open.any():
        routing = model(**batch, router_shift=torch.from_numpy(shift).float()).routing
        for row in np.flatnonzero(is_open):
            found[row].append((shift[row], np.stack(routing.choices, axis=1)[row].tolist()))
        following = next_shifts(routing, shift, model.reducer.config.temperature)
        is_open &= np.isfinite(following)
        shift = np.where(is_open, following, shift)
    return found


@pytest.mark.parametrize("fields", KINDS)
def test_the_walk_finds_every_route_that_a_shift_leads_to(prompts, fields):
    model, batch = random_pyramid(fields), make_batch(prompts)
    paths = walk(model, batch)
    assert [len(path) > 2 for path in paths] == [True, True, False, True]
    ends = [shift for path in paths for shift, _ in path[1:]]
    for shift in np.concatenate([np.linspace(min(ends) - 0.1, max(ends) + 0.1, 40), [HIGHEST]]):
        if min(abs(shift - end) for end in ends) < 5e-3:
            continue  # too near a change for float32 to tell which side
        routes = routes_at(model, batch, shift)
        for row, path in enumerate(paths):
            expected = [route for start, route in path if start <= shift][-1]
            assert routes[row].tolist() == expected


@pytest.mark.parametrize("fields", KINDS)
def test_the_ends_are_the_dearest_and_the_cheapest_route(prompts, fields):
    prompts[0] = make_sample(3, [(8, 8)], 4, seed=1)
    model, batch = random_pyramid(fields), make_batch(prompts)
    assert (routes_at(model, batch, LOWEST)[[0, 1, 3]] == 0).all()
    assert (routes_at(model, batch, HIGHEST)[0] == 2).all()
    assert (routes_at(model, batch, HIGHEST)[[1, 3], :2] == 2).all()  # one token is left to the third DPE
    assert (routes_at(model, batch, HIGHEST)[2] == UNROUTED).all()


@pytest.mark.parametrize("fields", KINDS)
def test_a_shift_is_what_forcing_its_routes_would_be(prompts, fields):
    model, batch = random_pyramid(fields), make_batch(prompts)
    shift = torch.tensor([-2.0, 0.2, 0.0, 3.0])
    shifted = model(**batch, router_shift=shift)
    routes = np.stack(shifted.routing.choices, axis=1)
    assert not np.array_equal(routes, np.stack(model(**batch).routing.choices, axis=1))
    forced = model(**batch, routes=torch.from_numpy(np.maximum(routes, 0)))
    assert torch.equal(forced.last_hidden_state, shifted.last_hidden_state)
    assert torch.equal(forced.routing.probabilities, shifted.routing.probabilities)


def test_no_shift_changes_nothing_and_none_stays_behind(prompts):
    model, batch = make_model(make_config()), make_batch(prompts)
    before = model(**batch).last_hidden_state
    model(**batch, router_shift=torch.full((4,), 5.0))
    assert torch.equal(model(**batch).last_hidden_state, before)
    assert torch.equal(model(**batch, router_shift=torch.zeros(4)).last_hidden_state, before)


def test_a_plain_decoder_refuses_a_shift(prompts):
    with pytest.raises(ValueError, match="no reduction"):
        make_model()(**make_batch(prompts), router_shift=torch.zeros(4))


def routing_of(logits, choices, rates=(0.0, 1.0, 2.0)):
    """A record of one DPE and one sample."""
    return Routing(
        ((1, 1), (1, 2), (2, 2)),
        (1,),
        logits=[torch.tensor([logits])],
        choices=[np.array(choices)],
        directions=[np.array(rates, np.float32)],
    )


@pytest.mark.parametrize(
    ("logits", "choice", "shift", "temperature", "expected"),
    [
        ([1.0, 0.5, -0.6], 0, -9.0, 1.0, 0.5),  # 1 - 0.5 = 0.5 for 1x2, (1 + 0.6) / 2 = 0.8 for 2x2
        ([1.0, 0.5, 0.4], 0, -9.0, 1.0, 0.3),  # 2x2 first: (1 - 0.4) / 2
        ([1.0, 0.5, -0.6], 0, -9.0, 10.0, 5.0),
        ([1.0, 0.5, -0.6], 1, 0.5, 1.0, 1.1),
        ([1.0, 0.5, -0.6], 2, 1.1, 1.0, np.inf),
        ([1.0, 0.5, -0.6], UNROUTED, -9.0, 1.0, np.inf),
        ([0.0, 5.0, -2.0], 0, -2.0, 1.0, 1.0),  # 1x2 should have won at -5 already: it isn't allowed
    ],
)
def test_the_next_shift_is_where_two_experts_draw_level(logits, choice, shift, temperature, expected):
    found = next_shifts(routing_of(logits, [choice]), np.array([shift]), temperature)
    np.testing.assert_allclose(found, [expected], atol=2e-3)
    assert found[0] > shift


def steps(*pairs):
    """Steps in one counting."""
    return Steps(np.array([shift for shift, _ in pairs]), np.array([[share for _, share in pairs]]))


def test_a_table_holds_the_means_of_all_samples():
    samples = [
        steps((LOWEST, 1.0), (0.0, 0.6), (2.0, 0.2)),
        steps((LOWEST, 1.0), (1.0, 0.4)),
        steps((LOWEST, 1.0)),
    ]
    table = BudgetTable.of(samples, ("visual",))
    assert table.shifts == (LOWEST, 0.0, 1.0, 2.0, HIGHEST)
    np.testing.assert_allclose(table.shares["visual"], [1, 2.6 / 3, 2 / 3, 1.6 / 3, 1.6 / 3])
    assert table.shift_for(0.67, "visual") == 1.5
    assert table.shift_for(1.0, "visual") == LOWEST
    assert BudgetTable.from_dict(table.to_dict()) == table


def test_a_mean_that_rises_with_the_shift_is_pooled():
    table = BudgetTable.of([steps((LOWEST, 1.0), (0.0, 0.5), (1.0, 0.6), (2.0, 0.3))], ("full",))
    assert table.shares["full"] == pytest.approx((1.0, 0.55, 0.3, 0.3))


def test_rows_of_nearly_one_share_are_merged_and_the_ends_stay():
    pairs = [(LOWEST, 1.0), *((shift / 100, 1 - shift / 10000) for shift in range(1, 100))]
    table = BudgetTable.of([steps(*pairs)], ("full",))
    assert len(table.shifts) < 8
    assert table.shares["full"][0] == 1.0
    assert table.shares["full"][-1] == pytest.approx(1 - 99 / 10000)


@pytest.mark.parametrize(
    ("budget", "counting", "message"),
    [
        (0.2, "visual", r"out of reach.*goes from 0.400 to 0.900"),
        (0.39, "visual", r"out of reach.*goes from 0.400 to 0.900"),
        (0.95, "visual", r"out of reach.*goes from 0.400 to 0.900"),
        (0.6, "visual", r"nothing between 0.400 and 0.800"),
        (0.4, "paper", "counting must be one of visual, got 'paper'"),
        (0.0, "visual", "share of the dense FLOPs above 0 and up to 1, got 0.0"),
        (40, "visual", "got 40"),
        (float("nan"), "visual", "got nan"),
    ],
)
def test_a_budget_that_cannot_be_had_is_refused_with_what_can(budget, counting, message):
    table = BudgetTable((-1.0, 0.0, 1.0), {"visual": (0.9, 0.8, 0.4)})
    with pytest.raises(ValueError, match=message):
        table.shift_for(budget, counting)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"visual": [1.0, 0.5]}, "one of them `shift`"),
        ([1.0], "an object of number lists"),
        ({"shift": [0.0, 0.0], "visual": [1.0, 0.5]}, "increasing shifts"),
        ({"shift": [0.0], "visual": [1.0]}, "two or more"),
        ({"shift": [0.0, 1.0], "visual": [0.5, 1.0]}, "never increasing; found for visual"),
        ({"shift": [0.0, 1.0], "visual": [0.5]}, "one positive share per shift"),
    ],
)
def test_what_is_no_table_is_refused(saved, message):
    with pytest.raises(ValueError, match=message):
        BudgetTable.from_dict(saved)
