"""A LoRA directory onto its base: PEFT's adapter is loaded, checked key by key, and merged."""

from typing import Any

from torch import Tensor
from transformers.utils import logging

from llava.model.files import find_file, read_tensors
from llava.model.llava_llama import LlavaLlamaForCausalLM

logger = logging.get_logger(__name__)

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

OUTSIDE = ("vision_tower", "mm_projector", "vision_resampler", "reducer")
"""Modules that LLaVA never puts an adapter on. Their layers share leaf names with the decoder's (CLIP has a
`q_proj`, too), so an adapter's target list has to be kept off them by path."""


def load_adapter(model: LlavaLlamaForCausalLM, path: str, *, merge: bool = True) -> LlavaLlamaForCausalLM:
    """Put the LoRA adapter of a directory onto a model with its base weights; returns the same model.

    The adapter is computed in float32 and added to the weights. With merge=False it stays beside them, as
    quantised weights need it: adding to them would round once more.

    Raises:
        ValueError: peft isn't installed, the directory holds no LoRA adapter, or its weights don't fit.
    """
    try:
        import peft  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ValueError(
            f"{path} is a LoRA directory, which needs peft: pip install 'dpn-llava[train]'"
        ) from error
    weights = _read(path)
    outside = [part for part in OUTSIDE if not any(f".{part}." in name for name in weights)]
    try:
        config = peft.PeftConfig.from_pretrained(path)
        if not isinstance(config, peft.LoraConfig):
            raise ValueError(f"it describes a {config.peft_type} adapter; expected LORA")
        config.exclude_modules = rf"(?:.*\.)?(?:{'|'.join(outside)})\..*"
        adapted = peft.PeftModel(model, config)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{path}/adapter_config.json can't be used: {error}") from error
    there = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    misshapen = [
        f"{name} {tuple(value.shape)} instead of {tuple(there[name].shape)}"
        for name, value in weights.items()
        if name in there and value.shape != there[name].shape
    ]
    if misshapen:
        raise ValueError(
            f"the adapter in {path} has weights of another shape than its adapter_config.json (r={config.r}) "
            f"and its base say: {misshapen}"
        )
    result: Any = peft.set_peft_model_state_dict(adapted, weights)
    missing = [name for name in result.missing_keys if "lora_" in name or "modules_to_save" in name]
    if missing or result.unexpected_keys:
        raise ValueError(
            f"the adapter in {path} doesn't fit its base: missing {sorted(missing)}, unexpected "
            f"{sorted(result.unexpected_keys)}; the file is incomplete, or model_base names another model "
            f"than {config.base_model_name_or_path!r}, which it was trained on"
        )
    if not merge:
        logger.warning("the adapter of %s stays beside the quantised weights; it isn't merged", path)
        return adapted.base_model.model  # pyright: ignore[reportReturnType]
    merged: Any = adapted.merge_and_unload()  # pyright: ignore[reportCallIssue]
    return merged


def _read(path: str) -> dict[str, Tensor]:
    """Read adapter_model.safetensors or .bin; pickled code is never executed."""
    found = next((file for name in ADAPTER_WEIGHTS if (file := find_file(path, name)) is not None), None)
    if found is None:
        raise ValueError(f"{path} holds no adapter weights: expected {' or '.join(ADAPTER_WEIGHTS)}")
    return read_tensors(found)
