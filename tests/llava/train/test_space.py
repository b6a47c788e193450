from collections import namedtuple
from pathlib import Path

import pytest

from llava.train import space as module
from llava.train.arguments import parse
from llava.train.footprint import Engine, count_parameters
from llava.train.space import Space, check_space, num_saves
from llava.train.train import prepare

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


def saves(command, tmp_path, *words):
    return num_saves(parse(command(tmp_path, *words)).training, 1, 12)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--save_strategy", "no"], 0),
        (["--save_strategy", "steps", "--save_steps", "3", "--max_steps", "10"], 4),
        (["--save_strategy", "steps", "--save_steps", "0.5", "--max_steps", "10"], 2),
        (["--save_strategy", "epoch", "--max_steps", "-1", "--num_train_epochs", "3"], 3),
        (
            ["--save_strategy", "steps", "--save_steps", "2", "--max_steps", "-1", "--num_train_epochs", "1"],
            2,
        ),
    ],
)
def test_checkpoints_are_counted_as_they_will_be_written(words, expected, command, tmp_path):
    assert saves(command, tmp_path, *words) == expected


def test_a_disk_that_cannot_take_the_checkpoints_is_refused_before_anything_is_loaded(
    command, tmp_path, monkeypatch
):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(GIB, GIB, 100_000))
    words = ["--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "1"]
    with pytest.raises(
        ValueError, match=r"--output_dir .*: 0.1 MiB are free there.*2 checkpoints of .*keep less"
    ):
        prepare(command(tmp_path, *words))


def test_what_is_kept_and_written_next_must_fit_and_no_more(monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(0, 0, 5 * GIB))
    check_space(Space(2 * GIB, GIB, 2), Path(), 1)
    with pytest.raises(
        ValueError, match=r"needs about 7\.0 GiB: 3 checkpoints of 2\.0 GiB \(kept: all of them\)"
    ):
        check_space(Space(2 * GIB, GIB, 3), Path(), None)


def test_checkpoints_that_are_there_need_no_new_room(command, tmp_path, monkeypatch):
    arguments = parse(
        command(tmp_path, "--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "1")
    )
    counts, engine = count_parameters(arguments, None), Engine.of(arguments.training, 1)
    assert module.needed_space(counts, arguments.training, engine, 12).num_checkpoints == 2
    (tmp_path / "checkpoint-1").mkdir()
    assert module.needed_space(counts, arguments.training, engine, 12).num_checkpoints == 2
    monkeypatch.setattr(module, "is_usable", lambda checkpoint: checkpoint.name == "checkpoint-1")
    assert module.needed_space(counts, arguments.training, engine, 12).num_checkpoints == 1


def test_what_an_interrupted_run_left_half_written_counts_as_free(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: Usage(0, 0, 2))
    (tmp_path / ".unfinished" / "checkpoint-2").mkdir(parents=True)
    (tmp_path / ".unfinished" / "checkpoint-2" / "half").write_bytes(b"12345")
    check_space(Space(3, 1, 2), tmp_path, 1)
    with pytest.raises(ValueError, match="Make room"):
        check_space(Space(3, 2, 2), tmp_path, 1)
