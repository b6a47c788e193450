"""The flags of `python -m llava.train`: upstream LLaVA's names on top of transformers' own."""

import importlib.util
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, NoReturn

import torch
import transformers
from transformers import HfArgumentParser
from transformers.utils.import_utils import is_torch_tf32_available

from llava.train.cpu_ranks import connect
from llava.train.engine_file import engine_sections
from llava.train.legacy_flags import Flag, join_flags, require_known, split_flags, translate

logger = logging.getLogger(__name__)

CHECKPOINTING = ("gradient_checkpointing", "gradient_checkpointing_kwargs")


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class ModelArguments:
    """What is built: base model, vision tower, projector, reduction, and which of them learn."""

    model_name_or_path: str | None = _flag(None, "base model or LLaVA checkpoint: directory or hub id")
    version: str = _flag("v1", "conversation template: v1 for stage 2, plain for stage 1")
    freeze_backbone: bool = _flag(False, "keep the language model as it is")
    tune_mm_mlp_adapter: bool = _flag(False, "stage 1: train and save the projector only")
    vision_tower: str | None = _flag(None, "CLIP vision tower: directory or hub id")
    mm_vision_select_layer: int = _flag(-1, "hidden layer of the tower that is used; LLaVA-1.5 takes -2")
    pretrain_mm_mlp_adapter: str | None = _flag(None, "mm_projector.bin of stage 1")
    mm_projector_type: str = _flag(
        "linear", "linear or mlpNx_gelu (LLaVA-1.5: mlp2x_gelu), or one with fewer tokens: docs/projectors.md"
    )
    mm_projector_options: list[str] = field(
        default_factory=list,
        metadata={
            "help": "FIELD=VALUE ..., e.g. scale=2; unset: the projector's defaults, or the checkpoint's own"
        },
    )
    mm_use_im_start_end: bool = _flag(False, "put <im_start> and <im_end> around every image")
    mm_use_im_patch_token: bool = _flag(True, "add the <im_patch> token; LLaVA-1.5 does not")
    mm_patch_merge_type: str = _flag("flat", "how the tiles of one image are joined")
    mm_vision_select_feature: str = _flag("patch", "patch, or cls_patch to keep the class token")
    attn_implementation: str | None = _flag(None, "eager, sdpa or flash_attention_2; unset: automatic")
    reduction: list[str] = field(
        default_factory=list,
        metadata={
            "help": "METHOD [FIELD=VALUE ...], e.g. dpn preset=paper layers=8,16,24; unset: none, or the "
            "checkpoint's own"
        },
    )


@dataclass
class DataArguments:
    """What is trained on."""

    data_path: str | None = _flag(None, "JSON file in LLaVA's format")
    image_folder: str | None = _flag(None, "folder that the image paths of the JSON file start from")
    image_aspect_ratio: str = _flag("square", "square: resize and crop; pad: pad to a square first")
    is_multimodal: bool = _flag(False, "accepted for older command lines; a run here always has a tower")


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """How it is trained: transformers' own flags and LLaVA's additions."""

    cache_dir: str | None = _flag(None, "where downloads are kept")
    optim: str = _flag("adamw_torch", "optimizer")
    remove_unused_columns: bool = _flag(False, "must stay False: the collator needs every field")
    freeze_mm_mlp_adapter: bool = _flag(False, "keep the projector as it is")
    model_max_length: int = _flag(512, "longest sequence of text tokens; LLaVA-1.5 takes 2048")
    mm_projector_lr: float | None = _flag(None, "learning rate of the projector; unset: --learning_rate")
    bits: int = _flag(16, "16; 8 or 4 quantise the language model's frozen weights (with --lora_enable)")
    double_quant: bool = _flag(True, "4 bits: quantise the quantisation's own constants, too")
    quant_type: str = _flag("nf4", "4 bits: nf4 or fp4")
    lora_enable: bool = _flag(False, "train low-rank adapters of the language model instead of its weights")
    lora_r: int = _flag(64, "rank of the adapters; LLaVA-1.5 takes 128")
    lora_alpha: int = _flag(16, "adapters are scaled by lora_alpha / lora_r; LLaVA-1.5 takes 256")
    lora_dropout: float = _flag(0.05, "dropout in front of the adapters")
    lora_bias: str = _flag("none", "biases that learn beside the adapters: none, all or lora_only")
    use_cache: bool = _flag(True, "what config.json says for inference; training itself keeps no cache")
    group_by_modality_length: bool = _flag(False, "batches of one modality and of like length")
    preflight_only: bool = _flag(False, "make all checks, a step of the longest batch included, and stop")
    estimate: bool = _flag(False, "print the memory that every GPU needs, and stop; loads no weights")
    estimate_gpus: int = _flag(
        0, "for --estimate: GPUs of all machines; unset: this launch's, or this machine's"
    )

    def __post_init__(self) -> None:
        """Give the data order a seed of its own: unset, it would follow each rank's random state.

        Processes that train with DeepSpeed on CPUs are connected first.
        """
        if self.deepspeed and not torch.accelerator.is_available():
            self.use_cpu, self.accelerator_config = True, connect(self.ddp_timeout)
        super().__post_init__()
        if self.data_seed is None:
            self.data_seed = self.seed


class Arguments(NamedTuple):
    """A parsed command line."""

    model: ModelArguments
    data: DataArguments
    training: TrainingArguments


class _Parser(HfArgumentParser):
    """Raises what argparse would print after two screens of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help lists all flags)")


def build_parser() -> HfArgumentParser:
    """Build the parser of `python -m llava.train`."""
    return _Parser(
        [ModelArguments, DataArguments, TrainingArguments],  # pyright: ignore[reportArgumentType]
        prog="python -m llava.train",
        allow_abbrev=False,
    )


def parse(argv: Sequence[str]) -> Arguments:
    """Parse a command line; anything that nobody would read is an error."""
    parser = build_parser()
    flags = translate(split_flags(argv))
    known = {option.lstrip("-").replace("-", "_") for option in parser._option_string_actions}
    require_known(flags, known)
    zero = None
    if _is_on(flags, "estimate"):  # nothing is started, so neither DeepSpeed nor a GPU has to be there
        zero = next(
            (flag.words[0] for flag in reversed(flags) if flag.name == "deepspeed" and flag.words), None
        )
        flags = [flag for flag in flags if flag.name != "deepspeed"]
    _require_output_dir(flags)
    _require_deepspeed(flags)
    words = join_flags(_fit_to_version(_fit_to_device(flags)))
    model, data, training = parser.parse_args_into_dataclasses(words, look_for_args_file=False)
    training.deepspeed = zero if zero is not None else training.deepspeed
    return Arguments(model, data, training)


def asks_for_estimate(argv: Sequence[str]) -> bool:
    """Tell whether a command line only asks what its run would need."""
    return _is_on(translate(split_flags(argv)), "estimate")


def _require_output_dir(flags: list[Flag]) -> None:
    names = {flag.name for flag in flags}
    if "output_dir" not in names and "help" not in names:
        raise ValueError("--output_dir is missing: name the folder that checkpoints and the result go to")


def _require_deepspeed(flags: list[Flag]) -> None:
    """Refuse --deepspeed where transformers would fail on it in the middle of building the arguments."""
    if all(flag.name != "deepspeed" for flag in flags):
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError("--deepspeed: DeepSpeed is not installed; run `bash scripts/setup.sh train`")
    if not torch.accelerator.is_available() and os.environ.get("DS_ACCELERATOR") != "cpu":
        raise ValueError("--deepspeed needs a GPU and none was found; without it, training runs on the CPU")
    for flag in flags:
        if flag.name == "deepspeed" and flag.words:
            engine_sections(flag.words[0])


def _fit_to_device(flags: list[Flag]) -> list[Flag]:
    """Take out --tf32 where no GPU has it, and ask for the CPU where there is no GPU at all."""
    if _is_on(flags, "tf32") and not is_torch_tf32_available():
        logger.warning("--tf32 True is ignored: it needs an Ampere or newer GPU")
        flags = [flag for flag in flags if flag.name != "tf32"]
    uses_deepspeed = any(flag.name == "deepspeed" for flag in flags)
    if torch.accelerator.is_available() or uses_deepspeed or _is_on(flags, "use_cpu"):
        return flags
    if _is_on(flags, "bf16"):
        logger.warning("--bf16 True without a GPU: training in bf16 on the CPU")
    return [*flags, Flag("use_cpu", ("True",))]


def _fit_to_version(flags: list[Flag]) -> list[Flag]:
    """Give gradient checkpointing the name that this version of transformers doesn't warn about."""
    known = {field.name for field in fields(TrainingArguments)}
    names = {old: old.replace("gradient", "activation") for old in CHECKPOINTING}
    return [
        Flag(names[name], words) if names.get(name) in known else Flag(name, words) for name, words in flags
    ]


def _is_on(flags: list[Flag], name: str) -> bool:
    """Tell whether the last mention of a yes/no flag switches it on."""
    words = [flag.words for flag in flags if flag.name == name]
    return bool(words) and (not words[-1] or words[-1][0].lower() in {"true", "t", "yes", "y", "1"})
