"""The study driver: what it plans, what it skips, what it says when something fails. No training here."""

import subprocess

import pytest

from llava.toy import study
from llava.toy.methods import METHODS, Method
from llava.toy.study import Run, plan


def test_runs_go_seed_by_seed_through_the_methods(tmp_path):
    runs = plan(["dense", "policy@2"], range(2, 4), tmp_path)
    assert [(run.name, run.seed) for run in runs] == [
        ("dense", 2),
        ("policy@2", 2),
        ("dense", 3),
        ("policy@2", 3),
    ]
    assert runs[1].method is METHODS["policy@2"]
    assert runs[1].folder == tmp_path / "runs" / "policy@2" / "seed2"


def test_a_method_of_ones_own_is_given_with_its_words(tmp_path):
    (run,) = plan(["late=mu=0.3 layers=4,5,6"], range(1), tmp_path)
    assert (run.name, run.method.training_words()) == ("late", ("dpn", "mu=0.3", "layers=4,5,6"))


@pytest.mark.parametrize("methods", [["polizy"], ["dense", "dense"], ["a/b=mu=1"]])
def test_unknown_repeated_and_unusable_names_are_refused(tmp_path, methods):
    with pytest.raises(ValueError, match=r"unknown method 'polizy'; known: dense|a name of its own"):
        plan(methods, range(1), tmp_path)


def test_a_finished_step_is_not_repeated_and_other_settings_are_refused(tmp_path):
    counter, name = tmp_path / "count", tmp_path / "train"
    command = ["bash", "-c", f"echo x >> {counter}; echo said"]
    for _ in range(2):
        study._once(name, {"steps": 3}, command, {})
    assert counter.read_text() == "x\n"
    assert (tmp_path / "train.log").read_text() == "said\n"
    with pytest.raises(ValueError, match="another method name or --output"):
        study._once(name, {"steps": 4}, command, {})


def test_a_failed_step_names_its_log_and_is_tried_again(tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        study._once(tmp_path / "train", {}, ["bash", "-c", "exit 3"], {})
    assert f"exit status 3, see {tmp_path / 'train.log'}" in caught.value.stderr
    study._once(tmp_path / "train", {}, ["true"], {})


@pytest.fixture
def settings(tmp_path):
    return study.Settings(tmp_path, tmp_path / "pretrain", 7, 24, 1)


@pytest.fixture
def calls(monkeypatch):
    """Commands and environments in place of processes."""
    made = []
    monkeypatch.setattr(study, "_call", lambda command, environment, log: made.append((command, environment)))
    return made


def test_a_run_trains_with_its_seed_and_evaluates_every_point(tmp_path, settings, calls):
    method = Method(reduction="preset=value", points={"value@1": "dpn mu=1", "value": ""})
    assert study._carry_out(Run("value", method, 5, tmp_path / "run"), settings) is None
    (train, environment), (first, _), (second, _) = calls
    assert train == ["bash", "scripts/finetune.sh", "--reduction", "dpn", "layers=2,4,6", "preset=value"]
    assert (environment["SEED"], environment["MAX_STEPS"], environment["OMP_NUM_THREADS"]) == ("5", "7", "1")
    assert first[-3:] == ["--reduction", "dpn", "mu=1"]
    assert "24" in first
    assert "--reduction" not in second


def test_a_row_of_the_papers_tables_is_trained_by_its_file(tmp_path, settings, calls):
    assert study._carry_out(Run("paper", METHODS["paper"], 0, tmp_path / "run"), settings) is None
    train, environment = calls[0]
    assert (train, environment["ABLATION"]) == (["bash", "scripts/finetune_dpn.sh"], "dpn")


def test_every_type_of_projector_gets_one_stage_1_and_its_runs_start_from_it(tmp_path, settings, calls):
    runs = plan(["dense", "paper", "ldp_v2"], range(2), tmp_path)
    study.prepare(runs, settings, jobs=2)
    study._carry_out(runs[2], settings)
    folders = {environment["PROJECTOR_TYPE"]: environment["OUTPUT"] for _, environment in calls[:2]}
    assert folders == {"": f"{tmp_path}/pretrain/llava", "ldp_v2": f"{tmp_path}/pretrain/ldp_v2"}
    assert calls[2][1]["PROJECTOR"] == f"{tmp_path}/pretrain/ldp_v2/mm_projector.bin"
    study.prepare(runs, settings, jobs=1)
    assert len(calls) == 4  # nothing was trained again


def test_finished_runs_need_no_stage_1(tmp_path, settings, calls):
    runs = plan(["ldp_v2", "dense"], range(1), tmp_path)
    runs[0].folder.mkdir(parents=True)
    for step in ("train", "eval-ldp_v2"):
        (runs[0].folder / f"{step}.done").write_text("{}")
    study.prepare(runs, settings, jobs=1)
    assert [environment["PROJECTOR_TYPE"] for _, environment in calls] == [""]


def test_a_failed_run_does_not_stop_the_others(tmp_path, settings, monkeypatch, capsys):
    def fail_dense(command, environment, log):
        if "dense" in environment["OUTPUT"]:
            raise subprocess.CalledProcessError(1, command, stderr=f"exit status 1, see {log}")

    monkeypatch.setattr(study, "_call", fail_dense)
    runs = plan(["dense", "policy@2"], range(1), tmp_path)
    assert study.run_all(runs, settings, jobs=2) == 1
    said = capsys.readouterr().out
    assert "dense seed 0: FAILED (exit status 1, see" in said
    assert "policy@2 seed 0: done" in said


def test_failed_runs_and_words_that_stop_all_end_with_different_statuses(tmp_path, monkeypatch, capsys):
    def fail_dense(command, environment, log):
        if environment.get("OUTPUT", "").endswith("dense/seed0/checkpoint"):
            raise subprocess.CalledProcessError(1, command, stderr=f"exit status 1, see {log}")

    monkeypatch.setattr(study, "_call", fail_dense)
    words = ["--seeds", "1", "--output", str(tmp_path), "--methods"]
    with pytest.raises(SystemExit) as ended:
        study.main([*words, "dense", "policy@2"])
    assert ended.value.code == study.FAILED_RUNS
    assert "1 of 2 runs failed" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="unknown method 'densest'"):
        study.main([*words, "densest"])


def test_a_projector_that_fails_leaves_the_others_to_be_trained(tmp_path, settings, monkeypatch, capsys):
    def fail(command, environment, log):
        if environment["PROJECTOR_TYPE"] == "resampler":
            raise subprocess.CalledProcessError(1, command, stderr=f"exit status 1, see {log}")

    monkeypatch.setattr(study, "_call", fail)
    study.prepare(plan(["resampler", "dense"], range(1), tmp_path), settings, jobs=1)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("stage 1, resampler: FAILED (exit status 1, see ")
    assert said[1] == "stage 1, LLaVA: done"
