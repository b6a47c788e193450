import dataclasses

import pytest
import torch

from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments, parse

# The defaults that upstream documents, where a default of ours is no deliberate difference.
UPSTREAM = {
    "tune_mm_mlp_adapter": False,
    "freeze_backbone": False,
    "vision_tower": None,
    "mm_vision_select_layer": -1,
    "pretrain_mm_mlp_adapter": None,
    "mm_projector_type": "linear",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": True,
    "mm_patch_merge_type": "flat",
    "mm_vision_select_feature": "patch",
    "data_path": None,
    "is_multimodal": False,
    "image_folder": None,
    "image_aspect_ratio": "square",
    "cache_dir": None,
    "optim": "adamw_torch",
    "remove_unused_columns": False,
    "freeze_mm_mlp_adapter": False,
    "model_max_length": 512,
    "mm_projector_lr": None,
    "bits": 16,
    "double_quant": True,
    "quant_type": "nf4",
    "lora_enable": False,
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_bias": "none",
    "group_by_modality_length": False,
}

without_gpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="checks a machine without a GPU")


def parsed(tmp_path, *words):
    return parse(["--output_dir", str(tmp_path), *words])


def test_flags_have_upstreams_names_and_defaults():
    classes = (ModelArguments, DataArguments, TrainingArguments)
    fields = {field.name: field.default for cls in classes for field in dataclasses.fields(cls)}
    assert {name: fields[name] for name in UPSTREAM} == UPSTREAM


def test_the_reduction_takes_several_words_and_the_last_mention_wins(tmp_path):
    words = [
        "--reduction",
        "dpn",
        "preset=paper",
        "--reduction",
        "dpn",
        "preset=policy",
        "layers=2,4",
        "--seed",
        "1",
    ]
    assert parsed(tmp_path, *words).model.reduction == ["dpn", "preset=policy", "layers=2,4"]
    assert parsed(tmp_path, "--reduction", "none").model.reduction == ["none"]
    assert parsed(tmp_path).model.reduction == []  # a checkpoint's own goes on


def test_hyphenated_flags_are_accepted(tmp_path):
    assert parsed(tmp_path, "--model-max-length", "7").training.model_max_length == 7


def test_an_old_command_line_means_what_it_meant(tmp_path):
    old = ["--evaluation_strategy", "no", "--warmup_ratio", "0.03", "--lazy_preprocess", "True"]
    training = parsed(tmp_path, *old).training
    assert training.eval_strategy == "no"
    assert training.get_warmup_steps(1000) == 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rat", "1"], "did you mean --learning_rate"),
        (["--learning_rate", "fast"], "invalid float value: 'fast'"),
        (["--lr", "1"], "unknown flag --lr"),
    ],
)
def test_a_flag_that_cannot_be_read_is_an_error_of_one_line(words, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        parsed(tmp_path, *words)
    assert "\n" not in str(error.value)


def test_the_output_folder_is_demanded():
    with pytest.raises(ValueError, match="--output_dir is missing"):
        parse(["--seed", "1"])


@without_gpu
def test_tf32_without_a_gpu_is_ignored_with_a_notice(tmp_path, caplog):
    assert parsed(tmp_path, "--tf32", "True").training.tf32 is None
    assert "--tf32 True is ignored" in caplog.text


@without_gpu
def test_bf16_without_a_gpu_goes_to_the_cpu_with_a_notice(tmp_path, caplog):
    training = parsed(tmp_path, "--bf16", "True").training
    assert (training.bf16, training.use_cpu) == (True, True)
    assert "training in bf16 on the CPU" in caplog.text


def test_gradient_checkpointing_is_switched_on_without_a_warning(tmp_path, recwarn):
    assert parsed(tmp_path, "--gradient_checkpointing", "True").training.gradient_checkpointing is True
    assert not [warning for warning in recwarn if "gradient_checkpointing" in str(warning.message)]


@without_gpu
def test_deepspeed_without_a_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    with pytest.raises(ValueError, match="--deepspeed needs a GPU"):
        parsed(tmp_path, "--deepspeed", "scripts/zero2.json")
