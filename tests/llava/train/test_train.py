import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava.train.__main__ import main
from llava.train.train import prepare
from llava.train.train import run as run_job

ROOT = Path(__file__).parents[3]
DPN = ["--reduction", "dpn", "preset=paper", "layers=1,2"]


def run(words):
    run_job(prepare(words))


def weights(folder):
    tensors = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def log_of(folder):
    return [
        line
        for line in json.loads((folder / "trainer_state.json").read_text())["log_history"]
        if "loss" in line
    ]


@pytest.fixture(scope="module")
def stage1(command, tmp_path_factory):
    """The output folder of a stage 1 run with checkpoints."""
    output = tmp_path_factory.mktemp("stage1")
    run(command(output, "--save_strategy", "steps", "--save_steps", "1", stage=1))
    return output


def test_stage_one_writes_the_projector_and_its_config(stage1, world):
    saved = torch.load(stage1 / "mm_projector.bin", weights_only=True)
    assert sorted(saved) == [
        f"model.mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("bias", "weight")
    ]
    config = json.loads((stage1 / "config.json").read_text())
    assert config["mm_vision_tower"] == str(world / "tower")
    assert not list(stage1.glob("*.safetensors"))


def test_stage_one_is_resumed_from_its_last_checkpoint(stage1, command, tmp_path, caplog):
    shutil.copytree(stage1 / "checkpoint-1", tmp_path / "checkpoint-1")
    shutil.copy(stage1 / "run.json", tmp_path)
    with caplog.at_level(logging.INFO):
        run(command(tmp_path, "--save_strategy", "steps", stage=1))
    assert f"going on from {tmp_path / 'checkpoint-1'}" in caplog.text
    assert [line["step"] for line in log_of(tmp_path)] == [1, 2]


def test_a_finished_run_is_left_as_it_is(stage1, command, caplog):
    before = log_of(stage1)
    with caplog.at_level(logging.INFO):
        run(command(stage1, "--save_strategy", "steps", stage=1))
    assert "nothing is left to do" in caplog.text
    assert log_of(stage1) == before


def test_a_finished_run_without_checkpoints_is_left_as_it_is(command, tmp_path, caplog):
    words = command(tmp_path)
    run(words)
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        run(words)
    assert f"{tmp_path} holds the finished run; nothing is left to do" in caplog.text
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    (tmp_path / "model.safetensors").unlink()
    run(words)
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_interrupted_in_its_final_save_takes_the_result_from_its_checkpoint(stage, command, tmp_path):
    words = command(tmp_path, "--save_strategy", "steps", stage=stage)
    run(words)
    results = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    for name in results.keys() - {"run.json"}:
        (tmp_path / name).unlink()
    run(words)
    again = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    derived = {"training_args.bin", "trainer_state.json", "mm_projector.bin"}
    assert {name: again[name] for name in results.keys() - derived} == {
        name: results[name] for name in results.keys() - derived
    }
    assert again.keys() >= results.keys() - {"training_args.bin"}


def test_a_dense_run_in_the_folder_of_a_dpn_run_is_refused(command, tmp_path):
    run(command(tmp_path, "--save_strategy", "steps", *DPN))
    with pytest.raises(
        ValueError, match=r"holds another run \(reduction was {'method': 'dpn', .*, is None\)"
    ):
        run(command(tmp_path, "--save_strategy", "steps"))


def test_a_checkpoint_says_in_which_template_it_was_trained(stage1, command, tmp_path):
    run(command(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["conversation_template"] == "vicuna_v1"
    assert "conversation_template" not in json.loads((stage1 / "config.json").read_text())


def test_answers_behind_the_images_tokens_are_not_counted(world, command, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        run(command(tmp_path, "--model_max_length", "16", "--data_path", str(world / "stage1.json")))
    assert "lie behind model_max_length 16" in caplog.text
    assert "16 of them for each image" in caplog.text


@pytest.mark.parametrize("reduction", [[], DPN, ["--reduction", "dpn", "preset=policy", "layers=1,2"]])
def test_stage_two_writes_a_whole_checkpoint(reduction, stage1, command, tmp_path):
    projector = str(stage1 / "mm_projector.bin")
    run(
        command(
            tmp_path, "--pretrain_mm_mlp_adapter", projector, "--group_by_modality_length", "True", *reduction
        )
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["reduction"] is not None) == bool(reduction)
    names = weights(tmp_path).keys()
    assert any("reducer." in name for name in names) == bool(reduction)
    assert (tmp_path / "tokenizer_config.json").is_file()
    assert all(line["loss"] > 0 for line in log_of(tmp_path))
    assert all("language_loss" in line for line in log_of(tmp_path))


def test_the_reducer_learns(stage1, command, tmp_path):
    projector = str(stage1 / "mm_projector.bin")
    words = ["--pretrain_mm_mlp_adapter", projector, *DPN, "--save_strategy", "steps", "--save_steps", "1"]
    run(command(tmp_path, *words))
    first, second = weights(tmp_path / "checkpoint-1"), weights(tmp_path / "checkpoint-2")
    routers = [name for name in first if "reducer." in name]
    assert any(not torch.equal(first[name], second[name]) for name in routers)


def test_the_same_seed_gives_the_same_weights(command, tmp_path):
    for name in ("a", "b"):
        run(command(tmp_path / name, *DPN))
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reduction", "dpn", "kernel=1x1"], "kernel"),
        (["--reduction", "dpn", "layers=0,2"], "layers must increase and start at 1 or later"),
        (["--data_path", "nowhere.json"], r"--data_path nowhere\.json: there is no such file"),
        (["--output_dir", "/proc/no"], "--output_dir /proc/no cannot be written to"),
        (["--learning_rat", "1"], "did you mean --learning_rate"),
    ],
)
def test_a_bad_value_is_named_before_anything_is_loaded(words, message, command, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepare(command(tmp_path, *words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data_path", "nowhere.json"], "--data_path nowhere.json: there is no such file"),
        (["--reduction", "dpn", "layers=1,9"], "9"),
        (["--model_max_length", "0"], "--model_max_length must be at least 1"),
    ],
)
def test_the_command_line_ends_with_one_line_instead_of_a_traceback(words, message, command, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(command(tmp_path, *words))
    assert str(ended.value.code).startswith("python -m llava.train: ")
    assert message in str(ended.value.code)


def test_a_process_that_fails_prints_no_traceback(command, tmp_path):
    line = [sys.executable, "-m", "llava.train", *command(tmp_path, "--data_path", "nowhere.json")]
    result = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "python -m llava.train: --data_path nowhere.json: there is no such file" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_image_that_breaks_in_a_data_worker_is_named_in_one_line(world, command, tmp_path):
    shutil.copytree(world / "images", tmp_path / "images")
    records = [record for record in json.loads((world / "stage1.json").read_text()) for _ in range(2)]
    records += [{**record, "id": f"late-{record['id']}", "image": "late.png"} for record in records]
    (tmp_path / "images" / "late.png").write_bytes(b"no image")
    (tmp_path / "data.json").write_text(json.dumps(records))
    words = ["--data_path", str(tmp_path / "data.json"), "--image_folder", str(tmp_path / "images")]
    with pytest.raises(SystemExit) as ended:
        main(command(tmp_path / "out", *words, "--max_steps", "9", "--dataloader_num_workers", "1"))
    assert "Traceback" not in str(ended.value.code)
    assert "sample late-" in str(ended.value.code)
    assert "late.png can't be read" in str(ended.value.code)


def test_a_missing_image_is_found_before_anything_is_loaded(world, command, tmp_path):
    samples = json.loads((world / "stage2.json").read_text())
    samples[0]["image"] = "gone.png"
    (tmp_path / "data.json").write_text(json.dumps(samples))
    with pytest.raises(ValueError, match=r"1 of 6 images are missing in .*gone\.png \(sample 0\)"):
        prepare(command(tmp_path / "out", "--data_path", str(tmp_path / "data.json")))


def test_a_corrupt_first_image_ends_the_run_before_the_first_step(world, command, tmp_path):
    (tmp_path / "images").mkdir()
    for image in (world / "images").iterdir():
        (tmp_path / "images" / image.name).write_bytes(image.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"0\.png"):
        run(command(tmp_path / "out", "--image_folder", str(tmp_path / "images")))
