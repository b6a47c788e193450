"""What a run's weights depend on, kept in its output folder: another run in the same folder is refused.

run.json    the settings that the folder was started with; what only concerns speed or logging is not in it
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.model.projector_options import asked_options
from llava.train.arguments import Arguments
from llava.train.checkpoint import STATE_FILE

FILE = "run.json"
_MODEL = (
    "model_name_or_path",
    "vision_tower",
    "version",
    "freeze_backbone",
    "tune_mm_mlp_adapter",
    "mm_vision_select_layer",
    "mm_vision_select_feature",
    "mm_projector_type",
    "mm_use_im_start_end",
    "mm_use_im_patch_token",
    "mm_patch_merge_type",
)
_TRAINING = (
    "freeze_mm_mlp_adapter",
    "model_max_length",
    "group_by_modality_length",
    "seed",
    "data_seed",
    "learning_rate",
    "mm_projector_lr",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "optim_args",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "bf16",
    "fp16",
    "num_train_epochs",
    "max_steps",
    "bits",
    "double_quant",
    "quant_type",
    "lora_enable",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_bias",
)
_DIGITS = 16


def fingerprint(arguments: Arguments, reduction: Any) -> dict[str, Any]:
    """Return what the weights depend on; files count by their content, batches by their product."""
    model, data, training = arguments
    settings = {
        **{name: getattr(model, name) for name in _MODEL},
        "pretrain_mm_mlp_adapter": _content(model.pretrain_mm_mlp_adapter),
        "reduction": None if reduction is None else reduction.to_dict(),
        "data_path": _content(data.data_path),
        "image_aspect_ratio": data.image_aspect_ratio,
        **{name: getattr(training, name) for name in _TRAINING},
        "global_batch": training.train_batch_size
        * training.gradient_accumulation_steps
        * training.world_size,
    }
    options = asked_options(model.mm_projector_type, model.mm_projector_options)
    if options is not None:  # runs that began before there were any have no such entry
        settings["mm_projector_options"] = options
    for name in ("model_name_or_path", "vision_tower"):
        settings[name] = os.path.normpath(settings[name])
    return json.loads(json.dumps(settings))  # as it will be read back


def claim(output_dir: Path, settings: Mapping[str, Any], *, is_writer: bool) -> None:
    """Say in the folder what is trained there; refuse a folder with checkpoints or results of another run.

    Every rank must call it: all read, one writes. What a run left that never saved anything is replaced.
    """
    path = output_dir / FILE
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except json.JSONDecodeError:
        before = {}
    is_used = any(any(output_dir.glob(pattern)) for pattern in (STATE_FILE, f"checkpoint-*/{STATE_FILE}"))
    if is_used and before != settings:
        _refuse(output_dir, before, settings)
    if is_writer and before != settings:
        partial = path.with_name(f"{FILE}.partial")
        partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def _refuse(output_dir: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    found = (
        f"holds another run ({'; '.join(_differences(before, now))})"
        if before
        else f"holds a run, but no {FILE} with its settings"
    )
    raise ValueError(
        f"--output_dir {output_dir} {found}. Choose another --output_dir, or remove that folder to start "
        "over; a run goes on with the settings it began with (GPUs and batch may change, their product not)"
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say what differs, field by field where both sides have a reduction."""
    found = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{name}.")
        elif old != new:
            found.append(f"{prefix}{name} was {old!r:.60}, is {new!r:.60}")
    return found


def _content(name: str | None) -> str | None:
    """Name a file by its last part and a hash of what is in it, so that it may be moved."""
    if name is None:
        return None
    with Path(name).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{Path(name).name} sha256:{digest[:_DIGITS]}"
