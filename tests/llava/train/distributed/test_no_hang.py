"""No batch makes ranks wait for each other: whatever a rank's samples are, it runs the same modules.

gloo ends a run in which ranks disagree on a collective's size; where sizes happen to agree, the record of
every rank's modules and collectives shows it. A rank that waits prints its stack and fails (rank.py).
"""

import pytest

REDUCTIONS = {
    "paper": ["preset=paper", "min_tokens=2", "skip_below=2"],
    "policy": ["preset=policy", "credit=later", "budget=0.5", "uniform_share=0.2", "exploration_steps=6"],
    "value": ["preset=value", "exploration_steps=6"],
}
CASES = [("zero3", "paper", True), ("zero3", "policy", False), ("zero2", "value", True)]
EVERYTHING = [
    (zero, reduction, checkpointing)
    for zero in ("zero2", "zero3")
    for reduction in REDUCTIONS
    for checkpointing in (True, False)
]
HIDDEN, FEATURES = 32, 8


@pytest.fixture(scope="module")
def train(ranks, in_order, configs, uneven, tmp_path_factory):
    """A function that trains on the uneven samples, from a base that has no router yet, once for a case."""
    done = {}

    def run(zero, reduction, checkpointing, steps=4):
        key = (zero, reduction, checkpointing, steps)
        if key not in done:
            settings = [
                *("--data_path", uneven, "--model_max_length", 130, "--max_steps", steps),
                *("--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2),
                *("--gradient_checkpointing", checkpointing, "--deepspeed", configs(zero)),
                *("--reduction", "dpn", "layers=1,2", *REDUCTIONS[reduction]),
            ]
            words = in_order(tmp_path_factory.mktemp("uneven"), *settings)
            done[key] = ranks.run(words, traced=steps < 100, started=True, seconds=120 + 6 * steps)
        return done[key]

    return run


@pytest.mark.parametrize(("zero", "reduction", "checkpointing"), CASES)
def test_every_rank_runs_the_same_modules_and_collectives_in_the_same_order(
    zero, reduction, checkpointing, train
):
    first, second = train(zero, reduction, checkpointing)
    traces = first.seen("trace")
    assert traces == second.seen("trace")
    assert len(traces) == 4
    assert all(len(trace) > 20 for trace in traces)
    gathers = [ids for what, ids in traces[1] if what == "fetch" and ids]
    assert bool(gathers) == (zero == "zero3")


@pytest.mark.parametrize(("zero", "reduction", "checkpointing"), CASES)
def test_the_ranks_had_different_routes_and_one_of_them_no_visual_token(
    zero, reduction, checkpointing, train
):
    steps = [rank.seen("step") for rank in train(zero, reduction, checkpointing)]
    assert len(steps[0]) == len(steps[1]) == 7  # 3 steps of 5 micro batches, then the next epoch's first two
    routes = [[step["routes"] for step in rank] for rank in steps]
    assert routes[0] != routes[1]
    visual = [[sum(step["visual"][0]) for step in rank] for rank in steps]
    assert visual[1][0] == 0 < visual[0][0]  # text only
    assert visual[0][1] == 0 < visual[1][1]  # truncated away
    chosen = {expert for rank in routes for stages in rank for stage in stages for expert in stage}
    assert chosen >= {-1, 0, 1, 2}


@pytest.mark.parametrize(("zero", "reduction", "checkpointing"), CASES)
def test_new_modules_start_alike_on_all_ranks_and_as_intended(zero, reduction, checkpointing, train):
    (first,), (second,) = (rank.seen("start") for rank in train(zero, reduction, checkpointing))
    assert first == second
    routers = {name: it for name, it in first.items() if ".routers." in name}
    assert len(routers) == 2 * 4
    for name, found in routers.items():
        if "norm" in name:
            assert (found["mean"], found["std"]) == (float(name.endswith("weight")), 0.0)
        elif "hidden" in name:
            check_uniform(found, HIDDEN)
        elif reduction == "value":
            assert found["largest"] == 0  # nothing is known at first
        else:
            check_uniform(found, FEATURES)
    projector = first["model.mm_projector.2.weight"]
    assert projector["std"] == pytest.approx(0.02, rel=0.15)
    if reduction == "paper":
        assert first["model.embed_tokens.weight"]["last_row_from_mean"] < 1e-6  # the routing token's
    else:
        check_uniform(first["model.reducer.policy.value.weight"], FEATURES)
        assert first["model.reducer.policy.value.bias"]["largest"] == 0


def check_uniform(found, fan_in):
    """Kaiming-uniform with a = sqrt(5): uniform within 1 / sqrt(fan in)."""
    limit = fan_in**-0.5
    assert 0.7 * limit < found["largest"] <= limit
    size = found["shape"][0] * found["shape"][1]
    assert found["std"] == pytest.approx(limit / 3**0.5, rel=0.15 if size > 100 else 0.5)


def test_the_cost_weight_of_the_policy_is_one_number_on_all_ranks(train):
    first, second = train("zero3", "policy", False)
    assert [state["mu"] for state in first.seen("state")] == [state["mu"] for state in second.seen("state")]
    assert len({state["mu"] for state in first.seen("state")}) == 4  # and it moves


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("zero", "reduction", "checkpointing"), EVERYTHING)
def test_a_hundred_steps_on_uneven_ranks_come_to_their_end(zero, reduction, checkpointing, train):
    first, second = train(zero, reduction, checkpointing, steps=100)
    assert len(first.seen("rates")) == len(second.seen("rates")) == 100
