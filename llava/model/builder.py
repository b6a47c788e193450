"""From a directory to a model: what kind of checkpoint it is, is decided by its files and its config.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.model.assemble import assemble, check_tower, source_config, source_tokenizer
from llava.model.budgets import with_budgets
from llava.model.files import find_source
from llava.model.front import check_front
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.loading import check_kernels
from llava.model.quantization import quantization_config
from llava.model.reduction import reduction_at_inference
from llava.model.tokenizer import load_tokenizer

__all__ = ["load_pretrained_model", "load_tokenizer"]

DEFAULT_CONTEXT = 2048


class _Default(str):
    """A default that can be told from the same word given by a caller."""


_SPREAD = _Default("auto")


def load_pretrained_model(  # noqa: PLR0913 - upstream's signature
    model_path: str,
    model_base: str | None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = _SPREAD,
    device: str = "cuda",
    use_flash_attn: bool = False,
    *,
    reduction: Sequence[str] | None = None,
    **kwargs: Any,
) -> tuple[PreTrainedTokenizerBase, LlavaLlamaForCausalLM, Any, int]:
    """Load a LLaVA or DPN-LLaVA checkpoint for inference (docs/checkpoints.md; spec 1.9).

    Args:
        model_path: a full checkpoint, an HF-format one, or with `model_base` a projector-only directory
            (`mm_projector.bin`) or a LoRA directory (`adapter_config.json`).
        model_base: directory or hub id of the language model that the latter two belong to.
        model_name: kept for compatibility; nothing is decided by names.
        load_8bit: LLM.int8 weights through bitsandbytes.
        load_4bit: nf4 weights through bitsandbytes, with double quantisation.
        device_map: as transformers takes it: "auto", a place ("cpu", "disk", 0, "cuda:1"), or a dictionary of
            modules and places. A map that is given says where the model goes: "auto" is the CPU where there
            is no GPU. Names are ignored where `device` isn't "cuda".
        device: where the model goes; "cuda" without a GPU and without a map is an error.
        use_flash_attn: ask for flash-attn 2 (plain checkpoints only).
        reduction: words of `--reduction`; a trained one may only change how routes are chosen.
        kwargs: `dtype` or `torch_dtype` (default float16 on GPUs, float32 on CPU), `attn_implementation`, ...

    Returns:
        tokenizer, model, image processor (None for a text-only model), context length in tokens.

    Raises:
        ValueError: what was found in the directory isn't what its config.json promises.
    """
    device = _device(str(device), device_map)
    kwargs.pop("multimodal", None)
    dtype = _dtype(kwargs, device)
    quantized = quantization_config(load_8bit=load_8bit, load_4bit=load_4bit, compute_dtype=dtype)
    source = find_source(model_path, model_base)
    config = source_config(source)
    check_tower(source, config)
    elsewhere = [] if config.reduction is not None else ["model.reducer."]  # forced routes need no router
    config.reduction = reduction_at_inference(config.reduction, reduction, config.num_hidden_layers)
    check_kernels(config)
    check_front(config)
    options = _options(kwargs, device, device_map, use_flash_attn, quantized)
    tokenizer = source_tokenizer(source)
    model = assemble(source, config, tokenizer, dtype=dtype, allow_missing=elsewhere, **options)
    if "device_map" not in options:
        model.to(device)  # pyright: ignore[reportArgumentType]
    with_budgets(model, source.path)
    processor = None
    if model.config.mm_vision_tower is not None:
        tower = model.get_vision_tower()
        places = (parameter.device for parameter in model.parameters() if not parameter.is_meta)
        tower.load_model(dtype=dtype, device=next(places, torch.device("cpu")))  # meta: offloaded to disk
        processor = tower.image_processor
    return tokenizer, model.eval(), processor, getattr(model.config, "max_sequence_length", DEFAULT_CONTEXT)


def _device(device: str, device_map: Any) -> str:
    """Return "cpu" in place of the default "cuda" where a map that the caller gave has no use for a GPU.

    lmms-eval, for one, passes `device_map` alone.
    """
    if device != "cuda":
        return device
    is_given = device_map is not None and not isinstance(device_map, _Default)
    places = list(device_map.values()) if isinstance(device_map, Mapping) else [device_map]
    names_gpu = any(isinstance(place, int) or str(place).startswith("cuda") for place in places)
    if (names_gpu or not is_given) and not torch.cuda.is_available():
        asked, other = ("device_map", "'auto' or 'cpu'") if names_gpu else ("device", "'cpu'")
        found = device_map if names_gpu else device
        raise ValueError(f"{asked}={found!r}, but torch sees no GPU; pass {asked}={other}")
    is_elsewhere = is_given and all(str(place).partition(":")[0] in ("cpu", "disk") for place in places)
    return "cpu" if is_elsewhere or not torch.cuda.is_available() else "cuda"


def _options(
    kwargs: dict[str, Any], device: str, device_map: Any, use_flash_attn: bool, quantized: Any
) -> dict[str, Any]:
    """Combine what goes to from_pretrained; quantised weights can't be moved, so they need their place."""
    options = dict(kwargs)
    if use_flash_attn:
        options["attn_implementation"] = "flash_attention_2"
    if isinstance(device_map, Mapping):
        options["device_map"] = {name: _place(place) for name, place in device_map.items()}
    elif device == "cuda" and device_map is not None:
        options["device_map"] = device_map
    if quantized is not None:
        options["quantization_config"] = quantized
        options.setdefault("device_map", {"": device})
    return options


def _place(place: Any) -> Any:
    """Give a place as transformers reads it: the CPU has no number there ("cpu:0" fails)."""
    is_cpu = str(place).partition(":")[0] == "cpu"
    return "cpu" if is_cpu else place


def _dtype(kwargs: dict[str, Any], device: str) -> torch.dtype:
    """Take dtype= or torch_dtype= out of the arguments; the default is float16, on CPU float32."""
    asked = [kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs]
    chosen = next((value for value in asked if value is not None), None)
    if isinstance(chosen, str):
        chosen = getattr(torch, chosen, None)
        if not isinstance(chosen, torch.dtype):
            raise ValueError(f"dtype must be a torch dtype such as float32 or bfloat16, got {asked}")
    return chosen or (torch.float32 if device == "cpu" else torch.float16)
