"""Saving and restoring what was trained, also under ZeRO-3; finding the checkpoint to go on from."""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llava.model.projector import gathered
from llava.train.arguments import TrainingArguments
from llava.train.damage import damaged

logger = logging.getLogger(__name__)

PROJECTOR_FILE = "mm_projector.bin"
NON_LORA_FILE = "non_lora_trainables.bin"
STATE_FILE = "trainer_state.json"
"""Written last by transformers' Trainer, so a checkpoint folder that has it is complete."""

_COUNTERS = ("global_step", "max_steps", "num_train_epochs")
"""What must stand in it, as numbers."""
RESULT_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    NON_LORA_FILE,
    "*config.json",
    "token*",
    "*tokens*.json",
)


class PartialWeights(NamedTuple):
    """How a run that trains a part of the model keeps that part alone."""

    save: Callable[..., None]
    """Called by every rank with model, folder and is_writer."""
    load: Callable[[Any, Path], None]
    """Puts what was saved into the model again."""


def is_projector_key(name: str) -> bool:
    """Tell whether a parameter belongs into mm_projector.bin, which all stages and upstream read."""
    return "mm_projector." in name


def gather_parameters(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Tensor]:
    """Copy parameters to the CPU, whole even where ZeRO-3 has split them. Every rank must call it."""
    return {name: _whole(parameter) for name, parameter in parameters}


def save_projector(model: PreTrainedModel, folder: Path, *, is_writer: bool) -> None:
    """Write mm_projector.bin and config.json, stage 1's result. Every rank must call it; one writes.

    Where start and end tokens were added for images, their embeddings were trained too and are saved along.
    """
    tensors = gather_parameters(_stage_one(model))
    if not is_writer:
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    replace_file(folder / PROJECTOR_FILE, tensors)


def restore_projector(model: PreTrainedModel, folder: Path) -> None:
    """Put what `save_projector` wrote into a model, to go on with stage 1.

    Raises:
        ValueError: the file belongs to another model.
    """
    tensors = torch.load(folder / PROJECTOR_FILE, map_location="cpu", weights_only=True)
    restore(dict(_stage_one(model)), tensors, folder)


@torch.no_grad()
def restore(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Copy tensors into the parameters of the same names.

    Raises:
        ValueError: a parameter has no tensor, a tensor no parameter, or they differ in shape.
    """
    missing = sorted(parameters.keys() - tensors.keys())
    left = sorted(tensors.keys() - parameters.keys())
    misshapen = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(parameter.shape)}"
        for name, parameter in parameters.items()
        if name in tensors and tensors[name].shape != parameter.shape
    ]
    if missing or left or misshapen:
        raise ValueError(
            f"{folder} belongs to another model: it lacks {missing}, has {left} too many and {misshapen} in "
            "another shape; choose another --output_dir to start afresh"
        )
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])


def replace_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors so that the file is whole whenever it is there."""
    partial = path.with_name(f"{path.name}.partial")
    torch.save(dict(tensors), partial)
    partial.replace(path)


def last_checkpoint(output_dir: Path) -> Path | None:
    """Find the usable checkpoint-N with the highest N; name those that are passed over, and why."""
    usable: dict[int, Path] = {}
    for step, folder in numbered(output_dir).items():
        problem = _problem(folder)
        if problem is None:
            usable[step] = folder
        else:
            logger.warning("%s is %s and is not used", folder, problem)
    return usable[max(usable)] if usable else None


def numbered(output_dir: Path) -> dict[int, Path]:
    """List what is called checkpoint-N, by N, whatever it holds."""
    found = {path.name.removeprefix("checkpoint-"): path for path in output_dir.glob("checkpoint-*")}
    return {int(step): path for step, path in found.items() if step.isdecimal()}


def is_usable(checkpoint: Path) -> bool:
    """Tell whether a run can go on from a checkpoint: it has all its files, and all of them are whole."""
    return _problem(checkpoint) is None


def _problem(checkpoint: Path) -> str | None:
    """Say why a run can't go on from a checkpoint; None if it can."""
    missing = _missing(checkpoint)
    if missing:
        return f"incomplete (its saving was interrupted, or files were removed: no {', '.join(missing)})"
    broken = damaged(checkpoint)
    return f"damaged ({', '.join(broken)})" if broken else None


def is_finished(checkpoint: Path, training: TrainingArguments) -> bool:
    """Tell whether a checkpoint is the last one of the run that these arguments ask for."""
    state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    if training.max_steps > 0:
        return state["global_step"] >= training.max_steps
    has_same_end = state["num_train_epochs"] == math.ceil(training.num_train_epochs)
    return has_same_end and state["global_step"] >= state["max_steps"]


def holds_result(output_dir: Path, training: TrainingArguments) -> bool:
    """Tell whether a run without checkpoints has come to its end here."""
    has_weights = any(any(output_dir.glob(name)) for name in (PROJECTOR_FILE, "*.safetensors"))
    return _step(output_dir) is not None and has_weights and is_finished(output_dir, training)


def finish(checkpoint: Path, output_dir: Path, *, is_writer: bool) -> None:
    """Make a finished run's last checkpoint its result, unless saving got that far already."""
    if _step(output_dir) == _step(checkpoint):
        logger.info("%s is finished (%s); nothing is left to do", output_dir, checkpoint.name)
    elif is_writer:
        logger.info("%s is finished; taking the result from %s", output_dir, checkpoint)
        has_projector = (checkpoint / PROJECTOR_FILE).is_file()
        names = ("config.json", PROJECTOR_FILE) if has_projector else RESULT_FILES
        for name in (*names, STATE_FILE):
            for file in checkpoint.glob(name):
                shutil.copy(file, output_dir / file.name)


def check_engine(checkpoint: Path, training: TrainingArguments) -> None:
    """Refuse to go on from what another engine, or another number of DeepSpeed's ranks, has saved.

    Raises:
        ValueError: the optimizer's state in the checkpoint isn't readable for this run.
    """
    states = list(checkpoint.glob("global_step*/*_optim_states.pt"))  # one for each rank
    is_split = any(checkpoint.glob("global_step*/zero_pp_*_model_states.pt"))
    engine: Any = training
    saved_with = (3 if is_split else 2) if states else 0
    runs_with = (3 if engine.hf_deepspeed_config.is_zero3() else 2) if training.deepspeed else 0
    if saved_with != runs_with:
        raise ValueError(
            f"{checkpoint} was saved {_engine(saved_with)}, but this run is {_engine(runs_with)}: go on as "
            "it began, or choose another --output_dir"
        )
    if states and len(states) != training.world_size:
        raise ValueError(
            f"{checkpoint} was saved by {len(states)} ranks, but this run has {training.world_size}: "
            "DeepSpeed goes on with the same number only; start as many, or choose another --output_dir"
        )


def rehearse_saving(model: PreTrainedModel, tokenizer: Any, output_dir: Path) -> None:
    """Save everything but the weights once, so that what can't be saved shows before the first step."""
    folder = Path(tempfile.mkdtemp(prefix=".rehearsal-", dir=output_dir))
    try:
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    finally:
        shutil.rmtree(folder)


def _stage_one(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """List what stage 1 keeps: the projector, and embeddings if new tokens let them learn."""
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if is_projector_key(name) or ("embed_tokens." in name and parameter.requires_grad)
    ]


def _whole(parameter: nn.Parameter) -> Tensor:
    with gathered([parameter]):
        return parameter.detach().cpu().clone()


def _engine(stage: int) -> str:
    return f"with DeepSpeed ZeRO-{stage}" if stage else "without DeepSpeed"


def _step(folder: Path) -> int | None:
    """Read the step that a folder was saved at; None if its saving didn't come to an end."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_state = isinstance(state, dict) and all(isinstance(state.get(name), int) for name in _COUNTERS)
    return state["global_step"] if is_state else None


def _missing(checkpoint: Path) -> list[str]:
    """Name what a run could not go on without.

    transformers would take a checkpoint without schedule or random state, and go on as another run.
    """
    has_engine = any(checkpoint.glob("global_step*"))  # DeepSpeed's weights and optimizer
    found = {
        STATE_FILE: _step(checkpoint) is not None,
        "weights": has_engine
        or (checkpoint / PROJECTOR_FILE).is_file()
        or any(checkpoint.glob("*.safetensors")),
        "optimizer.pt": has_engine or (checkpoint / "optimizer.pt").is_file(),
        "scheduler.pt": (checkpoint / "scheduler.pt").is_file(),
        "rng_state*.pth": any(checkpoint.glob("rng_state*.pth")),
    }
    return [name for name, is_there in found.items() if not is_there]


PROJECTOR_ONLY = PartialWeights(save_projector, restore_projector)
"""Stage 1: mm_projector.bin and config.json."""
