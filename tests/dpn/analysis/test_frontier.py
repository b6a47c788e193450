"""The frontier against trying every combination of routes."""

import itertools

import numpy as np
import pytest

from dpn.analysis.frontier import cost_at, frontier, score_at

COST = np.array([[1.0, 2.0, 4.0]] * 4)
SCORE = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


def best_of_all(cost, score, limit):
    """The best mean score of any choice of one route per question within a mean cost."""
    best = -np.inf
    for choice in itertools.product(range(cost.shape[1]), repeat=len(cost)):
        rows = np.arange(len(cost))
        if cost[rows, choice].mean() <= limit + 1e-9:
            best = max(best, score[rows, choice].mean())
    return best


def test_questions_are_upgraded_where_it_buys_most():
    corners = frontier(COST, SCORE).curve()
    assert corners.tolist() == [[1.0, 0.25], [1.25, 0.5], [2.0, 0.75]]  # then nothing more can be bought


@pytest.mark.parametrize("seed", range(5))
def test_no_choice_of_routes_beats_it_and_its_corners_are_choices(seed):
    generator = np.random.default_rng(seed)
    cost, score = generator.random((5, 4)), generator.integers(0, 4, (5, 4)) / 3
    curve = frontier(cost, score).curve()
    for at, value in curve:
        assert best_of_all(cost, score, at) == pytest.approx(value)
    for limit in np.linspace(curve[0, 0], cost.max(), 12):
        assert best_of_all(cost, score, limit) <= score_at(curve, limit) + 1e-9


def test_it_rises_and_flattens():
    generator = np.random.default_rng(0)
    curve = frontier(generator.random((50, 9)), generator.random((50, 9))).curve()
    steps = np.diff(curve, axis=0)
    assert (steps > 0).all()
    slopes = steps[:, 1] / steps[:, 0]
    assert (np.diff(slopes) <= 1e-9).all()


def test_groups_count_by_their_size():
    grouped = frontier(COST[:2], SCORE[:2], np.array([3, 1])).curve()
    spread = frontier(COST[[0, 0, 0, 1]], SCORE[[0, 0, 0, 1]]).curve()
    assert grouped.tolist() == spread.tolist()


def test_redrawn_questions_are_the_same_as_built_anew():
    generator = np.random.default_rng(3)
    cost, score = generator.random((6, 5)), generator.random((6, 5))
    times = np.array([2, 0, 1, 1, 0, 2])
    again = np.repeat(np.arange(6), times)
    drawn, anew = frontier(cost, score).curve(times), frontier(cost[again], score[again]).curve()
    for at in np.linspace(0.2, 0.9, 8):
        assert score_at(drawn, at) == pytest.approx(score_at(anew, at))


def test_reading_it_both_ways():
    curve = frontier(COST, SCORE).curve()
    assert score_at(curve, 1.125) == pytest.approx(0.375)
    assert cost_at(curve, 0.375) == pytest.approx(1.125)
    assert (score_at(curve, 0.5), score_at(curve, 9.0)) == (0.25, 0.75)
    assert (cost_at(curve, 0.0), cost_at(curve, 0.9)) == (1.0, None)


def test_routes_that_change_nothing_leave_the_cheapest():
    assert frontier(COST[:1], np.ones((1, 3))).curve().tolist() == [[1.0, 1.0]]
