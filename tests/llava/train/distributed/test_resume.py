"""A run of which a rank was killed goes on by the same command as if nothing had happened, to the bit.

So does one whose disk was full. Nothing is ever resumed from what was half written.
"""

from typing import Any, NamedTuple

import pytest

from tests.llava.train.distributed.results import check_equal

EXPLORING = ["uniform_share=0.2", "exploration_steps=12"]
POLICY = ["--reduction", "dpn", "layers=1,2", "preset=policy", "credit=later", "budget=0.5", *EXPLORING]
VALUE = ["--reduction", "dpn", "layers=1,2", "preset=value", *EXPLORING]
LORA = ["--lora_enable", "True", "--lora_r", "4", "--lora_dropout", "0.2"]
STEPS, EVERY, EPOCH = 6, 2, 4


class Case(NamedTuple):
    """A kind of run, and how it is killed."""

    zero: str | None
    words: list[str]
    kill: dict[str, Any]
    resumed_at: int
    stage: int = 2

    @property
    def ranks(self):
        return 1 if self.zero is None else 2


CASES = {
    "stage 1": Case("zero2", [], {"rank": 1, "after": 3}, 2, stage=1),
    "stage 2": Case("zero3", POLICY, {"rank": 1, "saving": 4}, 2),
    "LoRA": Case("zero3", [*LORA, *VALUE], {"rank": 0, "after": 5}, EPOCH),
    "one process": Case(None, POLICY, {"rank": 0, "saving": 4}, 2),
    "LoRA in one process": Case(None, [*LORA, *POLICY], {"rank": 0, "after": 3}, 2),
}


@pytest.fixture(scope="module")
def command_of(in_order, configs):
    """A function that makes the command line of a case."""

    def make(case, output):
        zero = ("--use_cpu", "True") if case.zero is None else ("--deepspeed", configs(case.zero))
        settings = [
            *("--max_steps", STEPS, "--save_strategy", "steps", "--save_steps", EVERY),
            *("--per_device_train_batch_size", 4 // case.ranks, "--group_by_modality_length", "True"),
        ]
        return in_order(output, *settings, *zero, *case.words, stage=case.stage)

    return make


@pytest.fixture(scope="module")
def whole(ranks, command_of, tmp_path_factory):
    """A function that gives folder and record of a case's uninterrupted run."""
    done = {}

    def run(name):
        if name not in done:
            output = tmp_path_factory.mktemp("whole")
            done[name] = output, ranks.run(command_of(CASES[name], output), ranks=CASES[name].ranks)
        return done[name]

    return run


@pytest.mark.parametrize("name", CASES)
def test_after_kill_9_the_same_command_goes_on_to_the_bit(name, whole, ranks, command_of, tmp_path):
    case = CASES[name]
    expected, uninterrupted = whole(name)
    words = command_of(case, tmp_path)
    killed = ranks.run(words, ranks=case.ranks, expect=None, **case.kill)
    assert killed[case.kill["rank"]].code == -9
    assert all(rank.code != 0 for rank in killed)
    assert max(int(folder.name[11:]) for folder in tmp_path.glob("checkpoint-*")) == case.resumed_at
    assert (tmp_path / ".unfinished" / "checkpoint-4").is_dir() == ("saving" in case.kill)

    resumed = ranks.run(words, ranks=case.ranks)
    check_equal(tmp_path, expected)
    for before, after in zip(uninterrupted, resumed, strict=True):
        for kind in (
            "step",
            "rates",
            "state",
        ):  # samples in order, losses, routes; rates; mu, window, counters
            assert len(after.seen(kind)) == STEPS - case.resumed_at
            assert after.seen(kind) == before.seen(kind)[case.resumed_at :]
    assert not (tmp_path / ".unfinished").exists()


def test_the_runs_that_are_compared_change_from_step_to_step(whole):
    _, (first, second) = whole("stage 2")
    states = [rank.seen("state") for rank in (first, second)]
    assert len({state["loss_window"] for state in states[0]}) == STEPS
    assert len({state["mu"] for state in states[0]}) > STEPS / 2  # a step of text alone leaves it
    assert states[0] != states[1]  # a rank's loss window is its own
    steps = [[step["ids"] for step in rank.seen("step")] for rank in (first, second)]
    assert len(set(steps[0] + steps[1])) > STEPS
    assert steps[0][:2] != steps[0][EPOCH : EPOCH + 2]  # another order in another epoch


def test_a_full_disk_is_named_and_keeps_the_last_checkpoint(whole, ranks, command_of, tmp_path):
    words = command_of(CASES["stage 2"], tmp_path)
    full = ranks.run(words, expect=None, full_from=3)
    assert all(rank.code != 0 for rank in full)
    log = "".join(rank.log for rank in full)
    assert f"python -m llava.train: saving to {tmp_path} failed: " in log
    assert f"{tmp_path / 'checkpoint-2'} is complete; make room and start the same command again" in log
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    ranks.run(words)
    check_equal(tmp_path, whole("stage 2")[0])
