"""The study driver: what it plans, what it skips, what it says when something fails. No training here."""

import subprocess

import pytest

from llava.model.reduction import parse_reduction
from llava.toy import study
from llava.toy.study import METHODS, Point, Run, plan, points, reduction_words


def test_runs_go_seed_by_seed_through_the_methods(tmp_path):
    runs = plan(["dense", "policy@1"], range(2, 4), tmp_path)
    assert [(run.method, run.seed) for run in runs] == [
        ("dense", 2),
        ("policy@1", 2),
        ("dense", 3),
        ("policy@1", 3),
    ]
    assert runs[0].words == ()
    assert runs[1].words == ("dpn", "layers=2,4,6", "mu=1")
    assert runs[1].folder == tmp_path / "runs" / "policy@1" / "seed2"


def test_a_method_of_ones_own_is_given_with_its_words(tmp_path):
    (run,) = plan(["late=mu=0.3 layers=4,5,6"], range(1), tmp_path)
    assert (run.method, run.words) == ("late", ("dpn", "mu=0.3", "layers=4,5,6"))


@pytest.mark.parametrize("methods", [["polizy"], ["dense", "dense"], ["a/b=mu=1"]])
def test_unknown_repeated_and_unusable_names_are_refused(tmp_path, methods):
    with pytest.raises(ValueError, match=r"unknown method 'polizy'; known: dense|a name of its own"):
        plan(methods, range(1), tmp_path)


def test_a_router_of_values_is_run_at_several_cost_weights(tmp_path):
    (run,) = plan(["value"], range(1), tmp_path)
    assert Point("value@0.5", ("dpn", "mu=0.5")) in points(run)
    assert len(points(run)) > 3
    assert points(run._replace(method="policy@1", words=("dpn", "mu=1"))) == [Point("policy@1", ())]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_table_is_a_configuration_that_training_accepts(method):
    words = reduction_words(METHODS[method])
    assert (parse_reduction(words) is None) == (method == "dense")


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
    (tmp_path / "mm_projector.bin").touch()
    return study.Settings(tmp_path, tmp_path / "mm_projector.bin", 7, 24, 1)


def test_a_run_trains_with_its_seed_and_evaluates_every_point(tmp_path, settings, monkeypatch):
    calls = []
    monkeypatch.setattr(
        study, "_call", lambda command, environment, log: calls.append((command, environment))
    )
    run = Run("value", ("dpn", "preset=value"), 5, tmp_path / "run")
    assert study._carry_out(run, settings) is None
    (train, environment), *evaluations = calls
    assert train == ["bash", "scripts/finetune.sh", "--reduction", "dpn", "preset=value"]
    assert (environment["SEED"], environment["MAX_STEPS"], environment["OMP_NUM_THREADS"]) == ("5", "7", "1")
    assert len(evaluations) == len(points(run))
    assert evaluations[0][0][-3:] == ["--reduction", "dpn", f"mu={study._MU_AT_INFERENCE[0]}"]
    assert "24" in evaluations[0][0]


def test_a_failed_run_does_not_stop_the_others(tmp_path, settings, monkeypatch, capsys):
    def fail_dense(command, environment, log):
        if "dense" in environment["OUTPUT"]:
            raise subprocess.CalledProcessError(1, command, stderr=f"exit status 1, see {log}")

    monkeypatch.setattr(study, "_call", fail_dense)
    runs = plan(["dense", "policy@1"], range(1), tmp_path)
    assert study._run_all(runs, settings, jobs=2) == 1
    said = capsys.readouterr().out
    assert "dense seed 0: FAILED (exit status 1, see" in said
    assert "policy@1 seed 0: done" in said


def test_a_projector_that_is_missing_is_named(settings):
    with pytest.raises(ValueError, match="no such projector"):
        study._prepare(settings._replace(projector=settings.world / "none.bin"), make_projector=False)
