from pathlib import Path

import pytest

from llava.train.agreement import Rank, agree, disagreements, shared_flags
from llava.train.arguments import parse

SETTINGS = {"seed": 1, "deepspeed": "{}"}


def ranks(**changes):
    first = Rank(0, "node0", SETTINGS, sees_folder=True, checkpoint="checkpoint-8")
    return [first, first._replace(number=1), first._replace(number=8, machine="node1")._replace(**changes)]


def test_ranks_that_agree_have_nothing_to_say():
    assert disagreements(ranks()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sees_folder": False}, "rank 8 on node1 doesn't see the first rank's --output_dir (on node0)"),
        ({"checkpoint": None}, "rank 8 on node1 finds None to go on from, the first one checkpoint-8"),
        ({"settings": SETTINGS | {"seed": 2}}, "rank 8 on node1 has seed 2, the first one 1"),
        ({"settings": {"seed": 1}}, "rank 8 on node1 has deepspeed None, the first one '{}'"),
    ],
)
def test_a_rank_that_differs_is_named_with_its_machine(changes, message):
    assert disagreements(ranks(**changes)) == [message]


def test_the_deepspeed_file_counts_by_what_is_in_it(command, tmp_path):
    flags = [
        parse(command(tmp_path, "--estimate", "--deepspeed", f"scripts/{name}.json")).training
        for name in ("zero2", "zero3")
    ]
    two, three = (shared_flags(training) for training in flags)
    assert two["deepspeed"] == Path("scripts/zero2.json").read_text()
    assert {name for name in two if two[name] != three[name]} == {"deepspeed"}
    assert two["gradient_accumulation_steps"] == "1"


def test_one_process_has_nobody_to_agree_with(command, tmp_path):
    agree({}, parse(command(tmp_path)).training, tmp_path, None)
    assert list(tmp_path.iterdir()) == []
