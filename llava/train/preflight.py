"""Checks that a training run can finish, made before anything large is loaded."""

import importlib.util
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX
from llava.conversation import SeparatorStyle, conv_templates
from llava.data.encode import encode_uncut, template_of, training_segments
from llava.data.records import Record
from llava.data.verify import spread
from llava.model.projector_options import asked_options
from llava.model.reduction import MethodConfig
from llava.model.tokenizer import load_tokenizer
from llava.train.arguments import Arguments, DataArguments, ModelArguments, TrainingArguments
from llava.train.asked_reduction import check_reduction
from llava.train.engine_file import engine_sections
from llava.train.estimate import describe, estimate
from llava.train.footprint import readable
from llava.train.numbers import check_numbers
from llava.train.sources import require_source
from llava.train.space import check_space, needed_space

logger = logging.getLogger(__name__)

OLD_VERSIONS = ("v0", "v0.5")
LORA_BIASES = ("none", "all", "lora_only")
QUANT_TYPES = ("nf4", "fp4")
REPORTER_EXTRAS = {"wandb": "wandb", "tensorboard": "train"}
UNSERVED = {
    "label_smoothing_factor": (0.0, "the loss is the model's own, over the supervised positions alone"),
    "neftune_noise_alpha": (None, "images are spliced in behind the embedding, which it would disturb"),
    "ignore_data_skip": (False, "a run that goes on would see other samples than an uninterrupted one"),
}
"""Flags of transformers that would end the run or change it without a word: what they must be, and why."""
ENCODED = 32
"""How many samples are encoded to compare tokenizer and template."""


def check_arguments(arguments: Arguments, *, has_reduction: bool) -> None:
    """Raise `ValueError` for the first path or value that would end the run later."""
    model, data, training = arguments
    _check_model(model, has_reduction=has_reduction)
    _check_data(data)
    check_numbers(training)
    _check_training(model, training)
    _check_adapter(model, training)
    _check_quantization(training)
    check_sharding(model, training)
    require_writable(Path(training.output_dir or ""))


def check_run(arguments: Arguments, reduction: MethodConfig | None, records: Sequence[Record]) -> None:
    """Check what needs the base's small files but no weights: tokenizer and template, sizes, memory, disk.

    Memory is an estimate and is logged; the others are demanded. One rank has to call it.

    Raises:
        ValueError: `--reduction` contradicts the base, the template doesn't go with the tokenizer, or the
            disk can't take the checkpoints.
    """
    model, _, training = arguments
    check_reduction(arguments, reduction)
    tokenizer = load_tokenizer(str(model.model_name_or_path), cache_dir=training.cache_dir)
    check_template(tokenizer, model.version, str(model.model_name_or_path), records)
    found = estimate(arguments, reduction, records, world_size=training.world_size)
    logger.info("%s", describe(found, arguments))
    space = needed_space(found.counts, training, found.engine, len(records))
    logger.info(
        "disk: %d checkpoint(s) of %s at a time and a result of %s",
        space.num_checkpoints,
        readable(space.checkpoint),
        readable(space.result),
    )
    check_space(space, Path(training.output_dir or ""), training.save_total_limit)


def check_template(
    tokenizer: PreTrainedTokenizerBase, version: str, source: str, records: Sequence[Record]
) -> None:
    """Demand that the tokenizer of the base has the template's end token, and that answers survive encoding.

    Raises:
        ValueError: the end of an answer falls into pieces, or what would be learned isn't what records say.
    """
    template = template_of(version)
    is_special = template.sep_style in (SeparatorStyle.TWO, SeparatorStyle.LLAMA_2, SeparatorStyle.MPT)
    end = template.sep if template.sep_style is SeparatorStyle.MPT else template.sep2
    if is_special and end is not None:
        pieces = tokenizer.tokenize(end)
        if len(pieces) != 1:
            raise ValueError(
                f"--version {version} ends every answer with {end}, which the tokenizer of {source} takes "
                f"for {len(pieces)} tokens {pieces} (its own end is {tokenizer.eos_token}): no answer would "
                "learn to end; choose the --version that the base was made for, or another base"
            )
    tried = spread(records, ENCODED) if records else []
    lost = [record.id for record in tried if not _is_learned_as_written(record, tokenizer, version)]
    if len(lost) > len(tried) / 2:
        raise ValueError(
            f"the tokenizer of {source} doesn't give the answers back in {len(lost)} of {len(tried)} samples "
            f"tried (first: {lost[0]}): its vocabulary isn't made for this text, or its files are incomplete"
        )


def _is_learned_as_written(record: Record, tokenizer: PreTrainedTokenizerBase, version: str) -> bool:
    """Tell whether the supervised ids of a sample are its answers, spaces and end tokens aside."""
    has_image = record.image is not None
    encoded = encode_uncut(record.conversations, tokenizer, version=version, has_image=has_image)
    pieces = training_segments(record.conversations, template_of(version), has_image=has_image)
    written = "".join(piece.text for piece in pieces if piece.is_answer)
    for token in tokenizer.all_special_tokens:
        written = written.replace(str(token), "")
    learned = tokenizer.decode(encoded.labels[encoded.labels != IGNORE_INDEX], skip_special_tokens=True)
    return "".join(str(learned).split()) == "".join(written.split())


def check_sharding(model: ModelArguments, training: TrainingArguments) -> None:
    """Refuse what would lose weights or settings without a word."""
    if training.fsdp and (training.lora_enable or model.tune_mm_mlp_adapter):
        raise ValueError("--fsdp can't save a part of the model: use --deepspeed scripts/zero3.json")
    if not isinstance(training.deepspeed, str):
        return
    sections = engine_sections(training.deepspeed)
    zero = sections["zero_optimization"]
    stage = zero.get("stage")
    if training.bits < 16 and stage == 3:
        raise ValueError(
            f"--bits {training.bits} with --deepspeed {training.deepspeed}: ZeRO-3 can't split quantised "
            "weights; use scripts/zero2.json, or no --deepspeed (ZERO=none in the scripts)"
        )
    is_part = training.lora_enable or model.tune_mm_mlp_adapter
    gathers = zero.get("stage3_gather_16bit_weights_on_model_save") is True
    if stage == 3 and not is_part and not gathers:
        raise ValueError(
            f"--deepspeed {training.deepspeed}: without stage3_gather_16bit_weights_on_model_save: true in "
            "zero_optimization the result would hold no weights that can be loaded; add it "
            "(scripts/zero3.json has it)"
        )
    for name, loss in (
        ("optimizer", "--mm_projector_lr and the parameter groups"),
        ("scheduler", "--lr_scheduler_type"),
    ):
        if name in sections:
            raise ValueError(
                f"--deepspeed {training.deepspeed}: its section {name!r} would replace {loss}; remove it "
                "(scripts/zero3_offload.json is LLaVA's without these sections)"
            )


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
    asked_options(model.mm_projector_type, model.mm_projector_options)
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
    if training.save_on_each_node:
        raise ValueError(
            "--save_on_each_node True: a checkpoint is one folder that all ranks write, on a disk that all "
            "machines see; leave the flag out"
        )
    if training.eval_strategy != "no":
        raise ValueError(
            f"--eval_strategy {training.eval_strategy}: training evaluates nothing; leave the flag out and "
            "evaluate checkpoints with scripts/eval"
        )
    for name, (default, why) in UNSERVED.items():
        if getattr(training, name) != default:
            raise ValueError(f"--{name} {getattr(training, name)}: {why}; leave it out")
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
    if training.lora_bias not in LORA_BIASES:
        raise ValueError(f"--lora_bias must be one of {', '.join(LORA_BIASES)}, got {training.lora_bias}")


def _check_quantization(training: TrainingArguments) -> None:
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
