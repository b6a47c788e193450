import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llava.model.tokenizer import load_tokenizer
from llava.train.arguments import Arguments, DataArguments, ModelArguments, TrainingArguments
from llava.train.preflight import (
    check_arguments,
    check_sharding,
    check_template,
    require_source,
    require_writable,
)
from llava.train.train import prepare

CLASSES = {"model": ModelArguments, "data": DataArguments, "training": TrainingArguments}


@pytest.fixture
def given(tmp_path):
    """Arguments that pass, as keyword arguments by class."""
    for name in ("base", "tower"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "data.json").write_text("[]")
    (tmp_path / "images").mkdir()
    return {
        "model": {"model_name_or_path": str(tmp_path / "base"), "vision_tower": str(tmp_path / "tower")},
        "data": {"data_path": str(tmp_path / "data.json"), "image_folder": str(tmp_path / "images")},
        "training": {"output_dir": str(tmp_path / "out"), "report_to": "none", "use_cpu": True},
    }


def check(given, *, has_reduction=False, **changes):
    for name, value in changes.items():
        group = next(
            group
            for group, fields in (
                ("model", ModelArguments),
                ("data", DataArguments),
                ("training", TrainingArguments),
            )
            if name in fields.__dataclass_fields__
        )
        given[group][name] = value
    arguments = Arguments(
        ModelArguments(**given["model"]),
        DataArguments(**given["data"]),
        TrainingArguments(**given["training"]),
    )
    check_arguments(arguments, has_reduction=has_reduction)


def test_a_complete_command_line_passes_and_its_output_folder_exists(given):
    check(given)
    assert Path(given["training"]["output_dir"]).is_dir()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name_or_path": None}, "--model_name_or_path is missing"),
        ({"model_name_or_path": "/no/such/base"}, "--model_name_or_path /no/such/base: no such folder"),
        ({"vision_tower": None}, "--vision_tower is missing"),
        (
            {"pretrain_mm_mlp_adapter": "/no/p.bin"},
            "/no/p.bin: there is no such file",
        ),
        ({"version": "v7"}, "--version v7 is unknown; there are .*v1"),
        ({"version": "v0"}, "--version v0 is unknown; LLaVA 1.5 formatted it as v1; there are .*v1"),
        ({"lora_enable": True, "tune_mm_mlp_adapter": True}, "stage 1 trains the projector alone"),
        ({"save_on_each_node": True}, "a checkpoint is one folder that all ranks write"),
        ({"lora_enable": True, "lora_r": 0}, "--lora_r must be at least 1, got 0"),
        ({"lora_enable": True, "lora_bias": "some"}, "--lora_bias must be one of none, all, lora_only"),
        ({"bits": 5}, "--bits must be one of 4, 8, 16, got 5"),
        ({"bits": 4}, "quantised weights can't learn; add --lora_enable True"),
        ({"bits": 4, "lora_enable": True, "quant_type": "int4"}, "--quant_type must be one of nf4, fp4"),
        ({"eval_strategy": "steps", "eval_steps": 1}, "training evaluates nothing"),
        ({"data_path": None}, "--data_path is missing"),
        (
            {"data_path": "/no/data.json"},
            "/no/data.json: there is no such file.*README.md",
        ),
        ({"image_folder": "/no/images"}, "--image_folder /no/images: there is no such folder"),
        ({"image_aspect_ratio": "anyres"}, "--image_aspect_ratio anyres: training knows square and pad"),
        ({"remove_unused_columns": True}, "--remove_unused_columns must stay False"),
        ({"model_max_length": 0}, "--model_max_length must be at least 1, got 0"),
        ({"tune_mm_mlp_adapter": True, "freeze_mm_mlp_adapter": True}, "nothing to train"),
    ],
)
def test_a_value_that_would_end_the_run_is_named(given, changes, message):
    with pytest.raises(ValueError, match=message):
        check(given, **changes)


@pytest.mark.parametrize("module", ["peft", "bitsandbytes"])
def test_a_missing_package_is_named_with_how_to_get_it(module, given, monkeypatch):
    found = {"peft", "bitsandbytes"} - {module}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in found else None)
    with pytest.raises(ValueError, match=f"{module} is not installed; run `"):
        check(given, lora_enable=True, bits=8)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="checks a machine without a GPU")
def test_quantised_training_without_a_gpu_is_refused(given, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ValueError, match="--bits 8 needs a GPU and none was found"):
        check(given, lora_enable=True, bits=8)


@pytest.mark.parametrize(
    ("section", "loss"),
    [("optimizer", "--mm_projector_lr and the parameter groups"), ("scheduler", "--lr_scheduler_type")],
)
def test_a_deepspeed_file_that_replaces_flags_is_refused(section, loss, tmp_path):
    (tmp_path / "zero.json").write_text(json.dumps({section: {"type": "any"}}))
    training = SimpleNamespace(deepspeed=str(tmp_path / "zero.json"), fsdp=None, bits=16, lora_enable=False)
    with pytest.raises(ValueError, match=f"its section '{section}' would replace {loss}; remove it"):
        check_sharding(ModelArguments(), training)


@pytest.mark.parametrize(("is_part", "is_refused"), [(False, True), (True, False)])
def test_zero_3_that_would_save_no_weights_is_refused_where_all_of_them_are_the_result(
    is_part, is_refused, tmp_path
):
    (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": 3}}))
    training = SimpleNamespace(deepspeed=str(tmp_path / "zero.json"), fsdp=None, bits=16, lora_enable=is_part)
    expected = pytest.raises(ValueError, match="stage3_gather_16bit_weights_on_model_save: true")
    with expected if is_refused else contextlib.nullcontext():
        check_sharding(ModelArguments(), training)


@pytest.mark.parametrize(
    ("flag", "value"),
    [("label_smoothing_factor", 0.1), ("neftune_noise_alpha", 5.0), ("ignore_data_skip", True)],
)
def test_a_flag_of_transformers_that_the_run_would_not_survive_is_refused(flag, value, given):
    with pytest.raises(ValueError, match=f"--{flag} {value}: .*; leave it out"):
        check(given, **{flag: value})


def test_a_part_of_a_model_under_fsdp_is_refused():
    training = SimpleNamespace(deepspeed=None, fsdp="full_shard", lora_enable=True)
    with pytest.raises(ValueError, match="--fsdp can't save a part of the model"):
        check_sharding(ModelArguments(), training)


def test_stage_one_with_a_reduction_is_refused(given):
    with pytest.raises(ValueError, match="leave --reduction to stage 2"):
        check(given, tune_mm_mlp_adapter=True, has_reduction=True)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        require_source("model_name_or_path", str(tmp_path), "the base language model")


@pytest.mark.parametrize("name", ["lmsys/vicuna-7b-v1.5", "openai/clip-vit-large-patch14-336", "gpt2"])
def test_a_hub_id_is_left_to_the_download(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_source("model_name_or_path", name, "the base language model")


@pytest.mark.parametrize("name", ["checkpoints/base", "playground/toy/vicuna-tiny", "./base", "/data/base"])
def test_what_can_only_be_a_path_is_no_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match="no such folder"):
        require_source("model_name_or_path", name, "the base language model")


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--output_dir .*/file/out cannot be written to"):
        require_writable(tmp_path / "file" / "out")


def test_a_template_whose_end_the_tokenizer_does_not_know_is_refused(command, tmp_path):
    with pytest.raises(
        ValueError, match=r"--version mpt ends every answer with <\|im_end\|>, which the tokenizer"
    ):
        prepare(command(tmp_path, "--version", "mpt"))


def test_a_tokenizer_that_loses_the_answers_is_refused(world, command, tmp_path):
    records = prepare(command(tmp_path)).records
    tokenizer = load_tokenizer(str(world / "base"))
    check_template(tokenizer, "v1", "base", records)
    tokenizer.decode = lambda *_, **__: "something else"
    with pytest.raises(ValueError, match=r"the tokenizer of base doesn't give the answers back in 12 of 12"):
        check_template(tokenizer, "v1", "base", records)


def test_quantised_weights_under_zero_3_are_refused():
    training = SimpleNamespace(deepspeed="scripts/zero3.json", fsdp=None, bits=4)
    with pytest.raises(
        ValueError, match=r"--bits 4 with .*zero3\.json: ZeRO-3 can't split quantised weights"
    ):
        check_sharding(ModelArguments(), training)
