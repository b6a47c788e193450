"""One model out of a checkpoint of any kind: base weights, then the projector or adapter that lies beside."""

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
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
from llava.model.loading import add_tokens, check_images, check_routing_row, load_weights
from llava.model.lora import load_adapter
from llava.model.parts import PROJECTOR_PART, own_names, parts_of, put_into
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
        ValueError: `mm_vision_tower` can't be read, or isn't used in a way that it can.
    """
    if config.mm_vision_tower is None:
        return
    try:
        side = vision_config(config.mm_vision_tower).image_size
    except (ValueError, OSError) as error:
        is_local = Path(source.weights).is_dir()
        advice = "" if not (is_local and read_matching(source.weights, "vision_tower.")) else INSIDE
        raise ValueError(f"{error}{advice.format(source.weights)}") from error
    try:
        check_images(config)
    except ValueError as error:
        raise ValueError(f"{source.path}/config.json: {error}") from error
    asked = config.to_dict().get("input_image_size")  # LLaVA-HR's field, which the DPN authors' code has, too
    if asked not in (None, side):
        raise ValueError(
            f"{source.path}/config.json asks for images of {asked} pixels (input_image_size), but the tower "
            f"{config.mm_vision_tower} takes {side}; other sizes than the tower's own aren't supported"
        )


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
    """Load the weights of a checkpoint of any kind, everything but the vision tower; no global state changes.

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
    beside = _read_beside(source, config)
    parts = parts_of(beside)  # that each is complete is checked when it is put into the model
    if source.kind is Kind.HF:
        options["key_mapping"] = hf_format.KEY_MAPPING
    with _kept_random_state(options):
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
            if source.kind is Kind.FULL:
                check_routing_row(tokenizer, model, source.path)
            add_tokens(tokenizer, model)
        if beside:
            put_into(model, beside, source.path)
        if source.kind is Kind.LORA:
            model = load_adapter(model, source.path, merge="quantization_config" not in options)
        return model


def _kept_random_state(options: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
    """Give back the state of torch's generators: weights that are replaced are drawn from them first."""
    on_gpu = torch.cuda.is_initialized() or (torch.cuda.is_available() and "device_map" in options)
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_gpu else ())


def _read_beside(source: Source, config: LlavaConfig) -> dict[str, torch.Tensor]:
    """Read what lies beside the base, under the model's own names; a base may be able to do without."""
    if source.kind not in (Kind.PROJECTOR, Kind.LORA):
        return {}
    name = PROJECTOR_FILE if source.kind is Kind.PROJECTOR else NON_LORA_FILE
    path = find_file(source.path, name)
    if path is None:
        raise ValueError(
            f"{source.path} holds no {name}, where the projector's weights belong; a LoRA directory is "
            f"complete only after training has ended (upstream's checkpoint-N folders lack this file)"
        )
    beside = own_names(read_tensors(path))
    needs_projector = config.mm_vision_tower is not None and config.mm_projector_type != "identity"
    in_base = source.kind is Kind.LORA and read_config(source.weights).mm_vision_tower is not None
    if needs_projector and not in_base and PROJECTOR_PART not in parts_of(beside):
        raise ValueError(
            f"{path} holds no projector: expected {config.mm_projector_type} weights, whose names contain "
            f"mm_projector., and found {sorted(beside) or 'nothing'}"
        )
    return beside


def _drop_hf_rows(model: LlavaLlamaForCausalLM, rows: int) -> None:
    """Take HF's additions off the vocabulary again, and off the ids that generation uses."""
    model.resize_token_embeddings(rows, mean_resizing=False)
    generation: Any = model.generation_config
    if generation is not None and (generation.pad_token_id or 0) >= rows:
        generation.pad_token_id = model.config.pad_token_id
