"""Checks that a training run can finish, made before anything large is loaded."""

import importlib.util
import re
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llava.conversation import conv_templates
from llava.data.records import Record
from llava.train.arguments import Arguments, DataArguments, ModelArguments, TrainingArguments

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")
MISSING_IMAGES_NAMED = 5
REPORTER_EXTRAS = {"wandb": "wandb", "tensorboard": "train"}


def check_arguments(arguments: Arguments, *, has_reduction: bool) -> None:
    """Raise `ValueError` for the first path or value that would end the run later."""
    model, data, training = arguments
    _check_model(model, has_reduction=has_reduction)
    _check_data(data)
    _check_training(model, training)
    require_writable(Path(training.output_dir or ""))


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


def check_images(records: Sequence[Record], image_folder: str | None) -> None:
    """Demand that every image file of the records exists; name the first missing ones and their samples."""
    with_image = [record for record in records if record.image is not None]
    if not with_image:
        return
    folder = _require_image_folder(image_folder, with_image)
    names = {record.image: record for record in with_image}
    with ThreadPoolExecutor(max_workers=16) as pool:
        exists = pool.map(lambda name: (folder / str(name)).is_file(), names)
    missing = [(name, names[name].id) for name, found in zip(names, exists, strict=True) if not found]
    if missing:
        shown = ", ".join(f"{name} (sample {sample})" for name, sample in missing[:MISSING_IMAGES_NAMED])
        more = ", ..." if len(missing) > MISSING_IMAGES_NAMED else ""
        raise ValueError(
            f"{len(missing)} of {len(names)} images are missing in {folder}: {shown}{more}. "
            "playground/README.md says where each image set comes from."
        )


def _require_image_folder(image_folder: str | None, with_image: Sequence[Record]) -> Path:
    if not image_folder:
        raise ValueError(
            f"--image_folder is missing: {len(with_image)} samples have an image, e.g. {with_image[0].image}"
        )
    return Path(image_folder)


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
        raise ValueError(
            f"--version {model.version} is unknown; there are {', '.join(sorted(conv_templates))}"
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
    _require_reporters(training.report_to or ())


def _require_reporters(report_to: Iterable[str]) -> None:
    for name in report_to:
        if name in REPORTER_EXTRAS and importlib.util.find_spec(name) is None:
            raise ValueError(
                f"--report_to {name}: not installed; run `bash scripts/setup.sh {REPORTER_EXTRAS[name]}`"
            )
