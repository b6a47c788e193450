"""scripts/eval: each script on a tiny checkpoint and the small world, alone and under launchers."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llava.eval.__main__ import main
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.lines import answer_line
from llava.toy.benchmarks import QUICKSTART, SMALL

ROOT = Path(__file__).parent.parent
FAST = ["--limit", "3", "--max_new_tokens", "3", "--num_workers", "0", "--batch_size", "2"]
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3", "-m"],
    "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "3"],
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    for name, write in (QUICKSTART | SMALL).items():
        write(folder / name, seed=0, count=8)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny_llava, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tokenizer, model, _ = tiny_llava("dpn", "preset=policy", "layers=1,2,3")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(world, checkpoint, tmp_path_factory):
    """Every script as a user starts it, one per core at a time: name -> future of (folder, stdout)."""

    def run(name):
        folder = tmp_path_factory.getbasetemp() / "runs"
        return folder / name, script(name, checkpoint, *FAST, DATA_ROOT=world, OUTPUT=folder)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(run, name) for name in BENCHMARKS}


def script(name, checkpoint, *flags, **variables):
    """Run a script of scripts/eval as a user would; returns its stdout."""
    inherited = {
        key: value for key, value in os.environ.items() if key in {"PATH", "HOME", "OMP_NUM_THREADS"}
    }
    path = f"{Path(sys.executable).parent}:{inherited['PATH']}"
    command = ["bash", str(ROOT / "scripts" / "eval" / f"{name}.sh"), str(checkpoint), *flags]
    done = subprocess.run(
        command,
        env=inherited | {"PATH": path, "HF_HUB_OFFLINE": "1"} | {key: str(v) for key, v in variables.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_script_answers_and_scores_its_benchmark(name, runs, world):
    folder, shown = runs[name].result()
    rows = read_lines(folder / "answers.jsonl")
    scores = json.loads((folder / "scores.json").read_text())
    assert len(rows) == scores["num_questions"] == 3
    assert scores["protocol"].endswith("+first_3")
    assert scores["protocol"] in shown
    assert (scores["headline"] in scores["metrics"]) != ("not_scored" in scores)
    question = BENCHMARKS[name].questions(world)[0]
    assert list(rows[0])[: len(answer_line(question, "", ""))] == list(answer_line(question, "", ""))
    assert rows[0]["prompt"] == question.stored_prompt
    assert (rows[0]["route"] == []) == (question.image is None)


def test_a_whole_run_leaves_the_submission_beside_the_scores(world, checkpoint, tmp_path):
    names = ["vqav2", "mme", "mmbench", "mmvet"]
    words = ["--benchmarks", *names, "--model_path", str(checkpoint), "--data_root", str(world)]
    main([*words, "--output_dir", str(tmp_path / "out"), *FAST[2:]])
    for name in names:
        assert (tmp_path / "out" / name / BENCHMARKS[name].submission).exists()


def test_all_runs_what_is_there_names_the_rest_and_prints_one_table(world, checkpoint, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for folder in ("pope", "scienceqa"):
        (data / folder).symlink_to(world / folder)
    shown = script("all", checkpoint, *FAST, DATA_ROOT=data, OUTPUT=tmp_path / "out")
    assert "== scienceqa pope\n" in shown
    assert "| scienceqa | scienceqa_test+first_3 | image_accuracy |" in shown
    assert "| pope | pope_mean_f1 | f1 | - | 85.9 | 87.7 |" in shown
    assert (tmp_path / "out" / "table.md").read_text() in shown


def test_a_dry_run_of_all_shows_the_command_and_runs_nothing(world, tmp_path):
    shown = script("all", "a/checkpoint", DATA_ROOT=world, OUTPUT=tmp_path / "out", DRY_RUN=1)
    words = shown.splitlines()[1:]
    assert words[:3] == ["python", "-m", "llava.eval"]
    assert words[words.index("--model_path") + 1] == "a/checkpoint"
    assert set(BENCHMARKS) < set(words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_share_the_questions_under_a_launcher(launcher, world, checkpoint, tmp_path):
    """Three ranks, two questions: one rank has nothing to do."""
    command = [sys.executable, *LAUNCHERS[launcher]]
    command += ["llava.eval"] if launcher == "torchrun" else ["--module", "llava.eval"]
    command += ["--benchmarks", "scienceqa", "--model_path", str(checkpoint), "--data_root", str(world)]
    command += ["--output_dir", str(tmp_path / "out"), "--device", "cpu", *FAST, "--limit", "2"]
    alone = [*command[command.index("--benchmarks") :]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shared = read_lines(tmp_path / "out" / "scienceqa" / "answers.jsonl")
    alone[alone.index(str(tmp_path / "out"))] = str(tmp_path / "alone")
    main(alone)
    once = read_lines(tmp_path / "alone" / "scienceqa" / "answers.jsonl")
    for key in ("question_id", "text", "route", "tokens_per_layer"):
        assert [row[key] for row in shared] == [row[key] for row in once]
    assert not list((tmp_path / "out" / "scienceqa").glob("answers.rank*"))
