"""One model out of a checkpoint of any kind: base weights, then the projector or adapter that lies beside."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.model import hf_format
from llava.model.config import LlavaConfig, read_config
from llava.model.files import (
    NON_LORA_FILE,
    PROJECTOR_FILE,
    Kind,
    Source,
    find_file,
    read_matching,
    read_tensors,
)
from llava.model.hf_tokenizer import write_llava_tokenizer
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.loading import add_tokens, load_weights
from llava.model.lora import load_adapter
from llava.model.parts import own_names, parts_of, put_into
from llava.model.tokenizer import load_tokenizer
from llava.model.vision_tower import vision_config

SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)

INSIDE = (
    "; {} holds vision weights of its own. To use them, put the tower's config.json and "
    "preprocessor_config.json into a folder, name that folder as mm_vision_tower in the checkpoint's "
    "config.json, and set unfreeze_mm_vision_tower to true there"
)


def source_config(source: Source) -> LlavaConfig:
    """Read the configuration of a checkpoint of any kind.

    Raises:
        ValueError: it describes no Llama decoder, or another one than its base is.
    """
    if source.kind is Kind.HF:
        return hf_format.llava_config(source.path)
    config = read_config(source.path)
    if source.weights == source.path:
        return config
    base = read_config(source.weights)
    wrong = [
        f"{name}={getattr(config, name)} (base: {getattr(base, name)})"
        for name in SIZES
        if getattr(config, name) != getattr(base, name)
    ]
    if wrong:
        raise ValueError(f"{source.path} was not trained on the base {source.weights}: {', '.join(wrong)}")
    config.vocab_size = base.vocab_size  # as its weights have it; the tokenizer's new tokens come on top
    return config


def check_tower(source: Source, config: LlavaConfig) -> None:
    """Refuse, before weights are loaded, a vision tower that isn't there, and say what to do.

    Raises:
        ValueError: `mm_vision_tower` can't be read.
    """
    if config.mm_vision_tower is None:
        return
    try:
        vision_config(config.mm_vision_tower)
    except (ValueError, OSError) as error:
        is_local = Path(source.weights).is_dir()
        advice = "" if not (is_local and read_matching(source.weights, "vision_tower.")) else INSIDE
        raise ValueError(f"{error}{advice.format(source.weights)}") from error


def source_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """Load the tokenizer that goes with the language model; HF's two extra tokens are left out."""
    if source.kind is not Kind.HF:
        return load_tokenizer(source.weights)
    with tempfile.TemporaryDirectory() as folder:
        write_llava_tokenizer(source.path, Path(folder), hf_format.vocab_rows(source.path))
        return load_tokenizer(folder)


def assemble(
    source: Source,
    config: LlavaConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    dtype: torch.dtype,
    allow_missing: Sequence[str] = (),
    **options: Any,
) -> LlavaLlamaForCausalLM:
    """Load the weights of a checkpoint of any kind, everything but the vision tower.

    Args:
        source: what it is and where its language model comes from.
        config: its configuration, as `source_config` reads it.
        tokenizer: the model's; it and the vocabulary get the tokens that the configuration asks for. None
            leaves the vocabulary as it is saved.
        dtype: of all weights.
        allow_missing: beginnings of the names that need not be there.
        options: for transformers' from_pretrained.

    Raises:
        ValueError: weights are missing, left over or of another shape than the configuration says.
    """
    beside = _read_beside(source)
    parts = parts_of(beside)  # that each is complete is checked when it is put into the model
    if source.kind is Kind.HF:
        options["key_mapping"] = hf_format.KEY_MAPPING
    model = load_weights(
        source.weights,
        config,
        dtype=dtype,
        allow_missing=[*allow_missing, *beside, *parts],
        replaced=parts,
        **options,
    )
    if source.kind is Kind.HF:
        _drop_hf_rows(model, hf_format.vocab_rows(source.path))
    if tokenizer is not None:
        add_tokens(tokenizer, model)
    if beside:
        put_into(model, beside, source.path)
    if source.kind is Kind.LORA:
        model = load_adapter(model, source.path, merge="quantization_config" not in options)
    return model


def _read_beside(source: Source) -> dict[str, torch.Tensor]:
    """Read what lies beside the base, under the model's own names."""
    if source.kind not in (Kind.PROJECTOR, Kind.LORA):
        return {}
    name = PROJECTOR_FILE if source.kind is Kind.PROJECTOR else NON_LORA_FILE
    path = find_file(source.path, name)
    if path is None:
        raise ValueError(
            f"{source.path} holds no {name}, where the projector's weights belong; a LoRA directory is "
            f"complete only after training has ended (its checkpoint-N folders lack this file)"
        )
    return own_names(read_tensors(path))


def _drop_hf_rows(model: LlavaLlamaForCausalLM, rows: int) -> None:
    """Take HF's additions off the vocabulary again, and off the ids that generation uses."""
    model.resize_token_embeddings(rows, mean_resizing=False)
    generation: Any = model.generation_config
    if generation is not None and (generation.pad_token_id or 0) >= rows:
        generation.pad_token_id = model.config.pad_token_id
