"""The ways into training that upstream's scripts know."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

from llava.train import train as module
from llava.train.train import prepare, run
from llava.train.train_mem import with_flash_attention


@pytest.fixture
def gpu_with_flash(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.usefixtures("gpu_with_flash")
@pytest.mark.parametrize(
    ("words", "asks"),
    [
        (["--seed", "1"], True),
        (["--attn-implementation", "sdpa"], False),
        (["--reduction", "dpn", "preset=paper"], False),
        (["--reduction", "none"], True),
    ],
)
def test_train_mem_asks_for_flash_attention_where_the_choice_is_open(words, asks):
    added = ["--attn_implementation", "flash_attention_2"] if asks else []
    assert with_flash_attention(words) == words + added


def test_train_mem_runs_without_flash_attention_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert with_flash_attention(["--seed", "1"]) == ["--seed", "1"]
    assert "training with torch's own attention" in caplog.text


@pytest.mark.parametrize(("words", "chosen"), [([], "eager"), (["--attn_implementation", "sdpa"], "sdpa")])
def test_upstreams_train_function_reads_the_command_line(words, chosen, command, tmp_path, monkeypatch):
    jobs = []
    monkeypatch.setattr(sys, "argv", ["train.py", *command(tmp_path, *words)])
    monkeypatch.setattr(module, "run", jobs.append)
    module.train(attn_implementation="eager")
    assert jobs[0].arguments.model.attn_implementation == chosen


def test_stage_two_takes_the_start_and_end_tokens_of_stage_one(command, tmp_path):
    tokens = ["--mm_use_im_start_end", "True"]
    run(prepare(command(tmp_path / "one", *tokens, "--version", "v1", stage=1)))
    file = tmp_path / "one" / "mm_projector.bin"
    trained = torch.load(file, weights_only=True)["model.embed_tokens.weight"]
    job = prepare(command(tmp_path / "two", *tokens, "--pretrain_mm_mlp_adapter", str(file)))
    _, model, _ = module._build(job)
    assert torch.equal(model.model.embed_tokens.weight[-2:], trained[-2:])
    assert not torch.equal(trained[-2], trained[-1])  # both began as the mean of the others


def test_a_projector_file_without_the_tokens_embeddings_is_refused(stub, command, tmp_path):
    torch.save(
        {
            f"model.{name}": tensor
            for name, tensor in projector(16, 32).state_dict(prefix="mm_projector.").items()
        },
        tmp_path / "mm_projector.bin",
    )
    words = ["--mm_use_im_start_end", "True", "--pretrain_mm_mlp_adapter", str(tmp_path / "mm_projector.bin")]
    with pytest.raises(ValueError, match="holds no embeddings of <im_start> and <im_end>"):
        run(prepare(command(tmp_path / "out", *words)))


def projector(features, width):
    nn = torch.nn
    return nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Linear(width, width))


def test_a_checkpoint_goes_on_with_its_own_kind_of_projector_only(command, tmp_path):
    run(prepare(command(tmp_path / "first")))
    again = ["--model_name_or_path", str(tmp_path / "first")]
    with pytest.raises(ValueError, match="can't go on with --mm_projector_type linear"):
        run(prepare(command(tmp_path / "linear", *again, "--mm_projector_type", "linear")))
    unpad = ["--mm_patch_merge_type", "spatial_unpad"]  # brings a parameter that the checkpoint lacks
    run(prepare(command(tmp_path / "task", *again, *unpad)))  # finetune_task.sh: no stage 1 projector
    assert "model.image_newline" in load_file(tmp_path / "task" / "model.safetensors")
    assert json.loads((tmp_path / "task" / "config.json").read_text())["use_mm_proj"] is True


def test_a_base_from_the_hub_is_looked_for_in_the_cache_folder_of_the_flag(
    world, command, tmp_path, monkeypatch
):
    repository = tmp_path / "cache" / "models--owner--vicuna"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(world / "base", repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = ["--model_name_or_path", "owner/vicuna", "--cache_dir", str(tmp_path / "cache")]
    _, model, _ = module._build(prepare(command(tmp_path / "out", *words)))
    base = load_file(world / "base" / "model.safetensors")
    assert torch.equal(model.lm_head.weight, base["lm_head.weight"])
