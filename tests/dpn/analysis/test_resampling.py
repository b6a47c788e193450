"""Intervals and tests against closed forms and counts by hand."""

import math

import numpy as np
import pytest

from dpn.analysis.resampling import Draws, are_paired, bootstrap_test, interval, mcnemar_test
from dpn.analysis.tally import Tally, _ratio


def shares(scores, name="q"):
    units = tuple(f"{name}{number}" for number in range(len(scores)))
    return Tally(units, np.array([[score, 1.0] for score in scores]), _ratio)


def random_scores(count, share, seed):
    return (np.random.default_rng(seed).random(count) < share).astype(float)


def test_the_interval_over_questions_is_that_of_a_share():
    scores = random_scores(400, 0.7, seed=1)
    low, high = interval(Draws(samples=4000).headlines([shares(scores)]))
    p = scores.mean()
    error = 100 * math.sqrt(p * (1 - p) / 400)
    assert (high + low) / 2 == pytest.approx(100 * p, abs=0.5)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.06)


def test_seeds_that_differ_widen_the_interval():
    alike = [shares(random_scores(400, 0.7, seed=1))] * 3
    apart = [shares(random_scores(400, share, seed=1)) for share in (0.5, 0.7, 0.9)]
    narrow, wide = (np.ptp(interval(Draws().headlines(tallies))) for tallies in (alike, apart))
    assert wide > 3 * narrow


def test_draws_repeat_and_do_not_depend_on_what_was_drawn_before():
    ours, other = shares(random_scores(50, 0.5, 1)), shares(random_scores(50, 0.5, 2))
    alone = Draws(samples=100).headlines([ours])
    draws = Draws(samples=100)
    draws.headlines([other])
    assert np.array_equal(draws.headlines([ours]), alone)
    assert not np.array_equal(Draws(samples=100, seed=1).headlines([ours]), alone)


def test_two_models_get_the_same_questions_so_that_what_they_share_cancels():
    scores = random_scores(300, 0.6, seed=3)
    better = scores.copy()
    better[np.flatnonzero(better == 0)[:12]] = 1.0  # right on 12 questions more, wrong on none more
    draws = Draws()
    differences = draws.headlines([shares(better)]) - draws.headlines([shares(scores)])
    assert interval(differences).low > 0
    assert bootstrap_test(differences).p < 0.01
    apart = draws.headlines([shares(better, "other")]) - draws.headlines([shares(scores)])
    assert interval(apart).low < 0  # unpaired, the same difference drowns


def test_many_questions_are_drawn_in_parts():
    tally = shares(np.ones(3_000_000))
    assert (Draws(samples=3).headlines([tally]) == 100).all()


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (6, 6, 1.0),
    ],
)
def test_mcnemar_by_hand(gained, lost, p):
    ours = [1.0] * gained + [0.0] * lost + [1.0, 0.0]
    other = [0.0] * gained + [1.0] * lost + [1.0, 0.0]
    assert mcnemar_test(shares(ours), shares(other)) == ("McNemar", pytest.approx(p))


def test_mcnemar_of_thousands_of_questions_does_not_overflow():
    ours, other = [1.0] * 3000 + [0.0] * 2500, [0.0] * 3000 + [1.0] * 2500
    assert 0 < mcnemar_test(shares(ours), shares(other)).p < 1e-9


def test_the_bootstrap_never_calls_a_difference_impossible():
    assert bootstrap_test(np.ones(999)).p == pytest.approx(2 / 1000)
    assert bootstrap_test(np.zeros(999)).p == 1.0
    assert bootstrap_test(np.array([-1.0, 1.0] * 500)).p == pytest.approx(1.0, abs=0.01)


def test_pairs_answered_the_same_questions():
    a, b, other = shares([1, 0]), shares([0, 0]), shares([1, 1], "other")
    assert are_paired([a], [b])
    assert not are_paired([a], [other])
    assert are_paired([a, other], [b, other])  # seed by seed
    assert are_paired([a, b], [b])
    assert not are_paired([a, other], [b])


def test_no_replicates_are_refused():
    with pytest.raises(ValueError, match="1 or more replicates, got 0"):
        Draws(samples=0)
