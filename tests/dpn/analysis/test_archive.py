"""A study's answers in one file: what is kept, what is left out, and that the tables come out the same."""

import json
import tarfile

import pytest

from dpn.analysis.archive import archive, main
from dpn.analysis.study import load_study, summarise
from tests.dpn.analysis.conftest import GRADES


@pytest.fixture
def study(make_study):
    """A study of one method with two seeds, and what a real one has beside its answers."""
    made = make_study(policy=[{"routes": {grade: [["1x2", "1x1", "1x1"]] for grade in GRADES}}, {}])
    run = made / "runs" / "policy" / "seed0"
    (run / "train.done").write_text("{}")
    (run / "train.log").write_text("/home/someone")
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "model.safetensors").write_bytes(b"weights")
    for folder in (run / "points" / "policy").iterdir():
        (folder / "run.json").write_text('{"model_path": "/home/someone"}')
    return made


def unpacked(path, folder):
    with tarfile.open(path) as packed:
        packed.extractall(folder, filter="data")
    return folder


def test_the_tables_come_out_the_same_from_the_file(study, tmp_path):
    archive(study, tmp_path / "out" / "runs.tar.xz")
    again = unpacked(tmp_path / "out" / "runs.tar.xz", tmp_path / "again")
    assert summarise(load_study(again)) == summarise(load_study(study))


def test_weights_logs_and_machine_paths_stay_out(study, tmp_path):
    archive(study, tmp_path / "runs.tar.xz")
    with tarfile.open(tmp_path / "runs.tar.xz") as packed:
        names = packed.getnames()
    assert "runs/policy/seed0/train.done" in names
    assert {name.rsplit("/", 1)[-1] for name in names} == {"train.done", "scores.json", "answers.jsonl"}


def test_random_ids_are_dropped_and_probabilities_rounded(study, tmp_path):
    path = next(study.glob("runs/policy/seed0/points/*/*/answers.jsonl"))
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(row | {"answer_id": "x7", "probabilities": [[0.12345, 0.87655]]}) + "\n")
    archive(study, tmp_path / "runs.tar.xz")
    kept = unpacked(tmp_path / "runs.tar.xz", tmp_path / "again") / path.relative_to(study)
    assert json.loads(kept.read_text()) == row | {"probabilities": [[0.12, 0.88]]}


def test_the_same_answers_make_the_same_bytes(study, tmp_path):
    for name in ("a.tar.xz", "b.tar.xz"):
        archive(study, tmp_path / name)
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()


def test_no_answers_and_broken_ones_are_named(study, tmp_path):
    with pytest.raises(SystemExit, match="no answers under runs/METHOD"):
        main([str(tmp_path / "nowhere"), str(tmp_path / "runs.tar.xz")])
    path = next(study.glob("runs/policy/seed0/points/*/*/answers.jsonl"))
    path.write_text(path.read_text() + '{"question_id": ')
    with pytest.raises(SystemExit, match=rf"{path}, line \d+: not valid JSON .*; finish the evaluation"):
        main([str(study), str(tmp_path / "runs.tar.xz")])
