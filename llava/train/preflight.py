"""Checks that a training run can finish, made before anything large is loaded."""

import importlib.util
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch

from llava.conversation import conv_templates
from llava.train.arguments import Arguments, DataArguments, ModelArguments, TrainingArguments

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
OLD_VERSIONS = ("v0", "v0.5")
LORA_BIASES = ("none", "all", "lora_only")
QUANT_TYPES = ("nf4", "fp4")
REPORTER_EXTRAS = {"wandb": "wandb", "tensorboard": "train"}


def check_arguments(arguments: Arguments, *, has_reduction: bool) -> None:
    """Raise `ValueError` for the first path or value that would end the run later."""
    model, data, training = arguments
    _check_model(model, has_reduction=has_reduction)
    _check_data(data)
    _check_training(model, training)
    _check_adapter(model, training)
    _check_quantization(training)
    check_sharding(model, training)
    require_writable(Path(training.output_dir or ""))


def check_sharding(model: ModelArguments, training: TrainingArguments) -> None:
    """Refuse what would lose weights or settings without a word."""
    if training.fsdp and (training.lora_enable or model.tune_mm_mlp_adapter):
        raise ValueError("--fsdp can't save a part of the model: use --deepspeed scripts/zero3.json")
    if not isinstance(training.deepspeed, str):
        return
    sections = json.loads(Path(training.deepspeed).read_text(encoding="utf-8"))
    for name, loss in (
        ("optimizer", "--mm_projector_lr and the parameter groups"),
        ("scheduler", "--lr_scheduler_type"),
    ):
        if name in sections:
            raise ValueError(
                f"--deepspeed {training.deepspeed}: its section {name!r} would replace {loss}; remove it "
                "(scripts/zero3_offload.json is LLaVA's without these sections)"
            )


def require_source(flag: str, value: str | None, what: str) -> None:
    """Demand a directory with a config.json or, where no such directory can be meant, a hub id."""
    if not value:
        raise ValueError(f"--{flag} is missing: name {what} (a directory or a hub id)")
    path = Path(value)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(f"--{flag} {value}: this folder holds no config.json, so it is not {what}")
        return
    is_path_like = not HUB_ID.fullmatch(value) or Path(path.parts[0]).is_dir()
    if path.exists() or is_path_like:
        raise ValueError(f"--{flag} {value}: no such folder; expected {what} (a directory or a hub id)")


def require_writable(folder: Path) -> None:
    """Create the folder and write a file in it, as saving will."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--output_dir {folder} cannot be written to: {error}") from error


def _check_model(model: ModelArguments, *, has_reduction: bool) -> None:
    require_source("model_name_or_path", model.model_name_or_path, "the base language model")
    require_source("vision_tower", model.vision_tower, "the CLIP vision tower")
    projector = model.pretrain_mm_mlp_adapter
    if projector is not None and not Path(projector).is_file():
        raise ValueError(
            f"--pretrain_mm_mlp_adapter {projector}: there is no such file; "
            "stage 1 (scripts/pretrain.sh) writes mm_projector.bin"
        )
    if model.version not in conv_templates:
        hint = "; LLaVA 1.5 formatted it as v1" if model.version in OLD_VERSIONS else ""
        raise ValueError(
            f"--version {model.version} is unknown{hint}; there are {', '.join(sorted(conv_templates))}"
        )
    if model.tune_mm_mlp_adapter and has_reduction:
        raise ValueError(
            "--tune_mm_mlp_adapter True trains and saves the projector only, so a reduction's weights "
            "would be lost: leave --reduction to stage 2"
        )


def _check_data(data: DataArguments) -> None:
    if not data.data_path:
        raise ValueError("--data_path is missing: name the JSON file to train on")
    if not Path(data.data_path).is_file():
        raise ValueError(
            f"--data_path {data.data_path}: there is no such file; "
            "playground/README.md says where the training files come from"
        )
    if data.image_folder and not Path(data.image_folder).is_dir():
        raise ValueError(
            f"--image_folder {data.image_folder}: there is no such folder; "
            "playground/README.md says where each image set comes from"
        )
    if data.image_aspect_ratio not in {"square", "pad"}:
        raise ValueError(
            f"--image_aspect_ratio {data.image_aspect_ratio}: training knows square and pad, "
            "not tiles of any resolution"
        )


def _check_training(model: ModelArguments, training: TrainingArguments) -> None:
    if model.tune_mm_mlp_adapter and training.freeze_mm_mlp_adapter:
        raise ValueError("--tune_mm_mlp_adapter and --freeze_mm_mlp_adapter together leave nothing to train")
    if training.remove_unused_columns:
        raise ValueError("--remove_unused_columns must stay False: the collator needs every field")
    if training.model_max_length < 1:
        raise ValueError(f"--model_max_length must be at least 1, got {training.model_max_length}")
    if training.eval_strategy != "no":
        raise ValueError(
            f"--eval_strategy {training.eval_strategy}: training evaluates nothing; leave the flag out and "
            "evaluate checkpoints with scripts/eval"
        )
    _require_reporters(training.report_to or ())


def _check_adapter(model: ModelArguments, training: TrainingArguments) -> None:
    if not training.lora_enable:
        return
    if importlib.util.find_spec("peft") is None:
        raise ValueError("--lora_enable True: peft is not installed; run `bash scripts/setup.sh train`")
    if model.tune_mm_mlp_adapter:
        raise ValueError(
            "--lora_enable and --tune_mm_mlp_adapter exclude each other: stage 1 trains the projector alone"
        )
    if training.lora_r < 1:
        raise ValueError(f"--lora_r must be at least 1, got {training.lora_r}")
    if training.lora_bias not in LORA_BIASES:
        raise ValueError(f"--lora_bias must be one of {', '.join(LORA_BIASES)}, got {training.lora_bias}")


def _check_quantization(training: TrainingArguments) -> None:
    if training.bits not in {4, 8, 16}:
        raise ValueError(f"--bits must be 4, 8 or 16, got {training.bits}")
    if training.quant_type not in QUANT_TYPES:
        raise ValueError(f"--quant_type must be one of {', '.join(QUANT_TYPES)}, got {training.quant_type}")
    if training.bits == 16:
        return
    flag = f"--bits {training.bits}"
    if not training.lora_enable:
        raise ValueError(f"{flag}: quantised weights can't learn; add --lora_enable True, or leave it out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"{flag}: bitsandbytes is not installed; run `pip install bitsandbytes`")
    if not torch.accelerator.is_available():
        raise ValueError(f"{flag} needs a GPU and none was found; leave it out")


def _require_reporters(report_to: Iterable[str]) -> None:
    for name in report_to:
        if name in REPORTER_EXTRAS and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"--report_to {name}: not installed; run `bash scripts/setup.sh {REPORTER_EXTRAS[name]}`"
            )
