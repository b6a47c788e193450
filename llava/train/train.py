"""From a command line to a trained checkpoint: check, build, freeze, load data, train, save."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from transformers import set_seed

from llava.conversation import SeparatorStyle, conv_templates
from llava.data.collator import LlavaCollator
from llava.data.dataset import LlavaDataset
from llava.data.records import Record, read_records
from llava.data.verify import quick_check
from llava.model.projector_options import asked_options
from llava.model.reduction import from_dict, parse_reduction, routing_prompt
from llava.train import saving
from llava.train.agreement import agree
from llava.train.arguments import Arguments, TrainingArguments, parse
from llava.train.build import build_for_training
from llava.train.checkpoint import (
    PROJECTOR_ONLY,
    PartialWeights,
    check_engine,
    finish,
    holds_result,
    is_finished,
    last_checkpoint,
    rehearse_saving,
)
from llava.train.fingerprint import claim, fingerprint
from llava.train.legacy_flags import split_flags
from llava.train.longest import longest_batch
from llava.train.lora import ADAPTER_ONLY, add_adapter, quantization
from llava.train.preflight import check_arguments, check_run
from llava.train.trainable import set_trainable
from llava.train.trainer import LlavaTrainer
from llava.train.trial import TrialEndedError, TrialStep

logger = logging.getLogger(__name__)

IMAGES_TRIED = 8


class Job(NamedTuple):
    """A run whose arguments and data have been checked and of which nothing large is loaded yet."""

    arguments: Arguments
    reduction: Any
    records: list[Record]


def prepare(argv: Sequence[str]) -> Job:
    """Parse and check a command line and its data; raises `ValueError` for anything wrong with them."""
    _configure_logging()
    arguments = parse(argv)
    reduction = parse_reduction(arguments.model.reduction)
    check_arguments(arguments, has_reduction=reduction is not None)
    records = read_records(str(arguments.data.data_path))
    if arguments.training.process_index == 0:
        quick_check(records, arguments.data.image_folder, version=arguments.model.version)
        check_run(arguments, reduction, records)
    return Job(arguments, reduction, records)


def train(attn_implementation: str | None = None) -> None:
    """Train as the words of `sys.argv` say; upstream's function, which its entry scripts call.

    Args:
        attn_implementation: used where the words don't name one.
    """
    words = sys.argv[1:]
    is_named = any(flag.name == "attn_implementation" for flag in split_flags(words))
    if attn_implementation is not None and not is_named:
        words = [*words, "--attn_implementation", attn_implementation]
    run(prepare(words))


def run(job: Job) -> None:
    """Build, train and save; a run that was interrupted goes on, one that has finished is left as it is."""
    training = job.arguments.training
    output_dir = Path(training.output_dir or "")
    settings, resume = fingerprint(job.arguments, job.reduction), last_checkpoint(output_dir)
    agree(settings, training, output_dir, resume)
    claim(output_dir, settings, is_writer=training.should_save)
    if training.should_save:
        saving.clear(output_dir)
    if resume is None and holds_result(output_dir, training):
        logger.info("%s holds the finished run; nothing is left to do", output_dir)
        return
    if resume is not None and is_finished(resume, training):
        finish(resume, output_dir, is_writer=training.should_save)
        return
    if resume is not None:
        check_engine(resume, training)
    set_seed(training.seed)
    tokenizer, model, image_processor = _build(job)
    _remember_template(model.config, job.arguments.model.version)
    trained = add_adapter(model, training) if training.lora_enable else model
    set_trainable(trained, job.arguments.model, training)
    dataset = _build_dataset(job, model, tokenizer, image_processor)
    if training.should_save:
        rehearse_saving(model, tokenizer, output_dir)
    trainer = LlavaTrainer(
        model=trained,
        args=training,
        train_dataset=dataset,
        data_collator=LlavaCollator(
            tokenizer.pad_token_id,
            training.model_max_length,
            tokens_per_image=model.get_model().crop_shape.tokens,
        ),
        processing_class=tokenizer,
        partial=_partial(job.arguments),
    )
    trainer.add_callback(
        TrialStep(trainer, _longest(dataset, model, training), stops=training.preflight_only)
    )
    if resume is not None:
        logger.info("going on from %s", resume)
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except TrialEndedError:
        logger.info("all checks passed; nothing was trained (--preflight_only)")
        return
    _save(trainer, output_dir)


def _longest(dataset: LlavaDataset, model: Any, training: TrainingArguments) -> list[int]:
    """Choose the micro batch that is tried before the first step."""
    return longest_batch(
        dataset.modality_lengths,
        batch_size=training.train_batch_size,
        num_chunks=training.world_size * training.gradient_accumulation_steps,
        tokens_per_image=model.get_model().crop_shape.tokens,
        longest=training.model_max_length,
        is_grouped=training.group_by_modality_length,
        seed=training.data_seed or 0,
    )


def _partial(arguments: Arguments) -> PartialWeights | None:
    """Choose what checkpoints and result hold of the weights; None is all of them."""
    if arguments.model.tune_mm_mlp_adapter:
        return PROJECTOR_ONLY
    return ADAPTER_ONLY if arguments.training.lora_enable else None


def _build(job: Job) -> tuple[Any, Any, Any]:
    model, data, training = job.arguments
    dtype = _dtype(training)
    # DeepSpeed keeps float32 copies of what learns; elsewhere it has to be float32 itself
    new_dtype = None if training.deepspeed else torch.float32
    return build_for_training(
        model_name_or_path=model.model_name_or_path or "",
        vision_tower=model.vision_tower,
        mm_projector_type=model.mm_projector_type,
        mm_projector_options=asked_options(model.mm_projector_type, model.mm_projector_options),
        mm_vision_select_layer=model.mm_vision_select_layer,
        mm_vision_select_feature=model.mm_vision_select_feature,
        mm_patch_merge_type=model.mm_patch_merge_type,
        mm_use_im_start_end=model.mm_use_im_start_end,
        mm_use_im_patch_token=model.mm_use_im_patch_token,
        pretrain_mm_mlp_adapter=model.pretrain_mm_mlp_adapter,
        image_aspect_ratio=data.image_aspect_ratio,
        model_max_length=training.model_max_length,
        tune_mm_mlp_adapter=model.tune_mm_mlp_adapter,
        freeze_mm_mlp_adapter=training.freeze_mm_mlp_adapter,
        mm_projector_lr=training.mm_projector_lr,
        reduction=job.reduction,
        dtype=dtype,
        new_dtype=new_dtype,
        attn_implementation=model.attn_implementation,
        cache_dir=training.cache_dir,
        quantization=quantization(training, dtype),
    )


def _dtype(training: TrainingArguments) -> torch.dtype:
    """Choose the dtype of the loaded weights: half where they are frozen or DeepSpeed has better copies."""
    if training.bf16 and (training.lora_enable or training.deepspeed is not None):
        return torch.bfloat16
    return torch.float16 if training.fp16 and training.lora_enable else torch.float32


def _remember_template(config: Any, version: str) -> None:
    """Store a dialogue's template, so that evaluation asks in the wording that was trained."""
    if conv_templates[version].sep_style is not SeparatorStyle.PLAIN:
        config.conversation_template = "vicuna_v1" if version == "v1" else version


def _build_dataset(job: Job, model: Any, tokenizer: Any, image_processor: Any) -> LlavaDataset:
    """Build the data set and encode its first samples, so that what can't be read shows at once."""
    saved = model.config.reduction
    token, placement = routing_prompt(None if saved is None else from_dict(saved)) or (None, "first_turn")
    dataset = LlavaDataset(
        job.records,
        tokenizer,
        image_processor,
        version=job.arguments.model.version,
        image_folder=job.arguments.data.image_folder or "",
        image_aspect_ratio=job.arguments.data.image_aspect_ratio,
        routing_token=token,
        routing_placement=cast(Any, placement),
    )
    with_image = [index for index, record in enumerate(job.records) if record.image is not None]
    without = [index for index, record in enumerate(job.records) if record.image is None]
    for index in with_image[:IMAGES_TRIED] + without[:1]:
        dataset[index]
    return dataset


def _save(trainer: LlavaTrainer, output_dir: Path) -> None:
    """Write the result: everything, or the part that was trained and config.json."""
    with saving.refusing_half_saves(output_dir, is_writer=trainer.args.should_save):
        trainer.save_model(str(output_dir))
        trainer.save_state()  # last: its presence says that the folder is whole
    logger.info("saved %s", output_dir)


def _configure_logging() -> None:
    """Print what this package reports, on the first rank; others print errors only."""
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(format="%(message)s")
    logging.getLogger("llava").setLevel(logging.INFO if is_first else logging.ERROR)


if __name__ == "__main__":
    train()
