"""The measurement contract."""

import numpy as np
import pytest
import torch

from llava.bench.timing import Samples, Task, measure, ratio

CPU = torch.device("cpu")


def test_every_round_runs_every_variant_once_and_their_order_changes():
    seen = []
    tasks = {name: Task(lambda name=name: seen.append(name)) for name in "abc"}
    samples = measure(tasks, rounds=8, warmup=2, device=CPU, seed=0)
    timed = [tuple(seen[start : start + 3]) for start in range(6, len(seen), 3)]
    assert seen[:6] == list("aabbcc")
    assert len(timed) == 8
    assert all(sorted(order) == ["a", "b", "c"] for order in timed)
    assert len(set(timed)) > 2
    assert all(len(own.wall) == len(own.cpu) == 8 for own in samples.values())


def test_what_happens_after_a_run_is_not_in_the_clock_but_its_figures_are_kept():
    def slow(_):
        sum(range(2_000_000))
        return {"loss": 3.0}

    samples = measure({"a": Task(lambda: None, slow)}, rounds=2, warmup=0, device=CPU, seed=0)["a"]
    assert max(samples.cpu) < 0.005
    assert samples.extra == {"loss": [3.0, 3.0]}


def test_a_ratio_compares_within_rounds_so_that_a_slower_machine_cancels_out():
    reference = np.array([1.0, 10.0, 2.0])  # medians alone would say 5.0 / 2.0
    assert ratio(reference / 2, reference)["median"] == 0.5


@pytest.mark.parametrize(("clock", "expected"), [("wall", 2.0), ("cpu", 1.0)])
def test_the_clock_that_was_asked_for_is_read(clock, expected):
    assert Samples(wall=[2.0], cpu=[1.0]).on(clock).tolist() == [expected]
