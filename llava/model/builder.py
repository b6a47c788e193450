"""From a directory to a model: what kind of checkpoint it is, is decided by its config.json alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.model.config import read_config
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.loading import add_tokens, check_kernels, checkpoint_directory, load_weights
from llava.model.projector import load_projector
from llava.model.reduction import reduction_at_inference
from llava.model.tokenizer import load_tokenizer

__all__ = ["load_pretrained_model", "load_tokenizer"]

DEFAULT_CONTEXT = 2048


def load_pretrained_model(  # noqa: PLR0913 - upstream's signature
    model_path: str,
    model_base: str | None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    *,
    reduction: Sequence[str] | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, LlavaLlamaForCausalLM, Any, int]:
    """Load a LLaVA or DPN-LLaVA checkpoint for inference.

    Args:
        model_path: a full checkpoint, or with `model_base` a projector-only directory (`mm_projector.bin`).
        model_base: directory or hub id of the language model that a projector-only directory belongs to.
        model_name: kept for compatibility; nothing is decided by names.
        load_8bit: not supported yet.
        load_4bit: not supported yet.
        device_map: as transformers takes it; ignored where `device` isn't "cuda".
        device: where the model goes; "cuda" without a GPU is an error.
        use_flash_attn: ask for flash-attn 2 (plain checkpoints only).
        reduction: words of `--reduction`; a trained one may only change how routes are chosen.
        kwargs: `dtype` or `torch_dtype` (default float16 on GPUs, float32 on CPU), `attn_implementation`, ...

    Returns:
        tokenizer, model, image processor (None for a text-only model), context length in tokens.

    Raises:
        ValueError: what was found in the directory isn't what its config.json promises.
    """
    if load_8bit or load_4bit:
        raise ValueError("8-bit and 4-bit loading isn't supported yet; leave load_8bit and load_4bit out")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device='cuda', but torch sees no GPU; pass device='cpu'")
    kwargs.pop("multimodal", None)
    dtype = _dtype(kwargs, device)
    if use_flash_attn:
        kwargs["attn_implementation"] = "flash_attention_2"
    config = read_config(str(checkpoint_directory(model_path)))
    elsewhere = [] if model_base is None else ["model.mm_projector."]
    elsewhere += (
        [] if config.reduction is not None else ["model.reducer."]
    )  # forced routes need no router's weights
    config.reduction = reduction_at_inference(config.reduction, reduction, config.num_hidden_layers)
    check_kernels(config)
    placement = {"device_map": device_map} if device == "cuda" and device_map is not None else {}
    source = model_path if model_base is None else model_base
    tokenizer = load_tokenizer(source)
    model = load_weights(source, config, dtype=dtype, allow_missing=elsewhere, **placement, **kwargs)
    if model_base is not None:
        load_projector(model.model.mm_projector, Path(model_path) / "mm_projector.bin")
    if not placement:
        model.to(device)  # pyright: ignore[reportArgumentType]
    add_tokens(tokenizer, model)
    processor = None
    if config.mm_vision_tower is not None:
        tower = model.get_vision_tower()
        tower.load_model(dtype=dtype, device=model.device)
        processor = tower.image_processor
    return tokenizer, model.eval(), processor, getattr(config, "max_sequence_length", DEFAULT_CONTEXT)


def _dtype(kwargs: dict[str, Any], device: str) -> torch.dtype:
    """Take dtype= or torch_dtype= out of the arguments; the default is float16, on CPU float32."""
    asked = [kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs]
    chosen = next((value for value in asked if value is not None), None)
    if isinstance(chosen, str):
        chosen = getattr(torch, chosen, None)
        if not isinstance(chosen, torch.dtype):
            raise ValueError(f"dtype must be a torch dtype such as float32 or bfloat16, got {asked}")
    return chosen or (torch.float32 if device == "cpu" else torch.float16)
