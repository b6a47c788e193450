"""From a directory to a model: what kind of checkpoint it is, is decided by its config.json alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.config import LlavaConfig, read_config
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.projector import load_projector
from llava.model.reduction import DpnConfig, check_divides, from_dict, reduction_at_inference, routing_prompt
from llava.model.tokenizer import load_tokenizer
from llava.model.vision_tower import vision_config

__all__ = ["build_for_training", "load_pretrained_model", "load_tokenizer"]

logger = logging.get_logger(__name__)

IGNORED_KEYS = ("rotary_emb.inv_freq", "vision_tower.")
"""Buffers of old checkpoints, and the frozen tower that DeepSpeed saves along: neither is read from a
checkpoint."""
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
    config = read_config(str(_directory(model_path)))
    elsewhere = [] if model_base is None else ["model.mm_projector."]
    elsewhere += (
        [] if config.reduction is not None else ["model.reducer."]
    )  # forced routes need no router's weights
    config.reduction = reduction_at_inference(config.reduction, reduction, config.num_hidden_layers)
    _check_kernels(config)
    placement = {"device_map": device_map} if device == "cuda" and device_map is not None else {}
    source = model_path if model_base is None else model_base
    tokenizer = load_tokenizer(source)
    model = _load(source, config, dtype=dtype, allow_missing=elsewhere, **placement, **kwargs)
    if model_base is not None:
        load_projector(model.model.mm_projector, Path(model_path) / "mm_projector.bin")
    if not placement:
        model.to(device)  # pyright: ignore[reportArgumentType]
    _add_tokens(tokenizer, model)
    processor = None
    if config.mm_vision_tower is not None:
        tower = model.get_vision_tower()
        tower.load_model(dtype=dtype, device=model.device)
        processor = tower.image_processor
    return tokenizer, model.eval(), processor, getattr(config, "max_sequence_length", DEFAULT_CONTEXT)


def build_for_training(  # noqa: PLR0913 - one argument per flag
    *,
    model_name_or_path: str,
    vision_tower: str | None,
    mm_projector_type: str = "linear",
    mm_vision_select_layer: int = -1,
    mm_vision_select_feature: str = "patch",
    mm_patch_merge_type: str = "flat",
    mm_use_im_start_end: bool = False,
    mm_use_im_patch_token: bool = True,
    pretrain_mm_mlp_adapter: str | None = None,
    image_aspect_ratio: str = "square",
    model_max_length: int = DEFAULT_CONTEXT,
    tune_mm_mlp_adapter: bool = False,
    freeze_mm_mlp_adapter: bool = False,
    mm_projector_lr: float | None = None,
    reduction: DpnConfig | None = None,
    dtype: torch.dtype = torch.float32,
    attn_implementation: str | None = None,
    cache_dir: str | None = None,
) -> tuple[PreTrainedTokenizerBase, LlavaLlamaForCausalLM, Any]:
    """Build the model that a training stage starts from: a base LLM, or a LLaVA checkpoint to continue.

    Everything is loaded and checked; only the vision tower is frozen. A new reduction starts with fresh
    routers; a checkpoint's own one is kept.

    Raises:
        ValueError: weights are missing that no new module explains, or the reduction contradicts the
        checkpoint's.
    """
    config = read_config(model_name_or_path)
    started_as_llava = config.mm_vision_tower is not None
    config.mm_vision_tower = vision_tower
    config.mm_projector_type = mm_projector_type
    config.mm_vision_select_layer = mm_vision_select_layer
    config.mm_vision_select_feature = mm_vision_select_feature
    config.mm_patch_merge_type = mm_patch_merge_type
    config.mm_use_im_start_end = mm_use_im_start_end
    config.mm_use_im_patch_token = mm_use_im_patch_token
    config.image_aspect_ratio = image_aspect_ratio
    config.tokenizer_model_max_length = model_max_length
    config.tokenizer_padding_side = "right"
    config.tune_mm_mlp_adapter = tune_mm_mlp_adapter
    # pyright: ignore[reportAttributeAccessIssue] - upstream's field
    config.freeze_mm_mlp_adapter = freeze_mm_mlp_adapter
    config.mm_projector_lr = mm_projector_lr  # pyright: ignore[reportAttributeAccessIssue] - upstream's field
    had_reduction = config.reduction is not None
    if reduction is not None:
        if had_reduction and from_dict(config.reduction) != reduction:  # pyright: ignore[reportArgumentType]
            raise ValueError(
                f"{model_name_or_path} was trained with another reduction than the one asked for; leave "
                f"--reduction out "
                f"to continue with {config.reduction}"
            )
        config.reduction = reduction.to_dict()
    tokenizer = load_tokenizer(model_name_or_path, model_max_length=model_max_length)
    if vision_tower is not None:
        config.mm_hidden_size = vision_config(vision_tower).hidden_size
    _check_kernels(config)
    new = [] if started_as_llava else ["model.mm_projector.", "model.image_newline"]
    new += [] if had_reduction else ["model.reducer."]
    options: dict[str, Any] = {"cache_dir": cache_dir}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    model = _load(model_name_or_path, config, dtype=dtype, allow_missing=new, **options)
    _add_tokens(tokenizer, model)
    if vision_tower is None:
        return tokenizer, model, None
    model.get_vision_tower().load_model(dtype=dtype)
    if pretrain_mm_mlp_adapter is not None:
        load_projector(model.model.mm_projector, Path(pretrain_mm_mlp_adapter))
    return tokenizer, model, model.get_vision_tower().image_processor


def _load(
    path: str, config: LlavaConfig, *, dtype: torch.dtype, allow_missing: Sequence[str], **options: Any
) -> LlavaLlamaForCausalLM:
    """Load weights and refuse every key that is missing or left over without a reason."""
    try:
        loaded: Any = LlavaLlamaForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed below
            **options,
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the weights in {path} can't be read: {error}") from error
    model, info = loaded
    missing = [key for key in info["missing_keys"] if not key.startswith(tuple(allow_missing) or "\0")]
    unexpected = [key for key in info["unexpected_keys"] if not any(part in key for part in IGNORED_KEYS)]
    mismatched = list(info["mismatched_keys"])
    if missing or unexpected or mismatched:
        raise ValueError(
            f"the weights in {path} don't fit its config.json: missing {sorted(missing)}, unexpected "
            f"{sorted(unexpected)}, of another shape {sorted(map(str, mismatched))}; the directory is "
            f"incomplete or its "
            f"config.json describes another model"
        )
    _repair_generation_config(model)
    return model


def _check_kernels(config: LlavaConfig) -> None:
    """Refuse, before weights are loaded, a reduction whose kernels don't fit the tower's grid."""
    if config.reduction is not None and config.mm_vision_tower is not None:
        if config.mm_vision_select_feature != "patch":
            raise ValueError(
                f"a reduction needs a grid of visual tokens, which mm_vision_select_feature="
                f"{config.mm_vision_select_feature!r} doesn't leave; use patch"
            )
        sizes = vision_config(config.mm_vision_tower)
        side = int(sizes.image_size) // int(sizes.patch_size)  # pyright: ignore[reportArgumentType]
        check_divides(from_dict(config.reduction), (side, side))


def _directory(path: str) -> Path:
    """Give the checkpoint directory; a hub id passes as it is.

    Raises:
        ValueError: neither a directory with a config.json nor something that can be a hub id.
    """
    directory = Path(path)
    if directory.is_dir() and not (directory / "config.json").is_file():
        raise ValueError(
            f"{path} holds no config.json; give a checkpoint directory (its last training step's, for "
            f"example)"
        )
    if not directory.is_dir() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise ValueError(f"no checkpoint at {path}: no such directory, and it can't be a hub id (owner/name)")
    return directory


def _dtype(kwargs: dict[str, Any], device: str) -> torch.dtype:
    """Take dtype= or torch_dtype= out of the arguments; the default is float16, on CPU float32."""
    asked = [kwargs.pop(name) for name in ("dtype", "torch_dtype") if name in kwargs]
    chosen = next((value for value in asked if value is not None), None)
    if isinstance(chosen, str):
        chosen = getattr(torch, chosen, None)
        if not isinstance(chosen, torch.dtype):
            raise ValueError(f"dtype must be a torch dtype such as float32 or bfloat16, got {asked}")
    return chosen or (torch.float32 if device == "cpu" else torch.float16)


def _add_tokens(tokenizer: PreTrainedTokenizerBase, model: LlavaLlamaForCausalLM) -> None:
    """Add the tokens that the configuration asks for.

    The vocabulary only ever grows, new rows are the mean of the old.
    """
    config = model.config
    reduction = None if config.reduction is None else from_dict(config.reduction)
    if config.mm_vision_tower is not None:
        if config.mm_use_im_patch_token:
            tokenizer.add_tokens([DEFAULT_IMAGE_PATCH_TOKEN], special_tokens=True)
        if config.mm_use_im_start_end:
            tokenizer.add_tokens([DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN], special_tokens=True)
    prompt = routing_prompt(reduction)
    if prompt is not None:
        tokenizer.add_tokens([prompt[0]], special_tokens=True)
        # pyright: ignore[reportAttributeAccessIssue]
        router_id: Any = tokenizer.convert_tokens_to_ids(prompt[0])
        config.router_token_id = router_id
    old = model.model.embed_tokens.num_embeddings
    if len(tokenizer) <= old:
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
            weight[old:] = weight[:old].mean(0, keepdim=True)


def _repair_generation_config(model: LlavaLlamaForCausalLM) -> None:
    """Drop, with a notice, sampling fields that contradict greedy decoding.

    Vicuna's generation_config.json has them, and saving it would fail.
    """
    generation = model.generation_config
    if generation is None or generation.do_sample:
        return
    defaults = GenerationConfig()
    fields = ("temperature", "top_p", "top_k", "min_p", "typical_p")
    wrong = [
        name
        for name in fields
        if getattr(generation, name, None) not in (None, getattr(defaults, name, None))
    ]
    for name in wrong:
        setattr(generation, name, getattr(defaults, name, None))
    if wrong:
        logger.warning(
            "generation_config sets %s without do_sample; reset to greedy decoding", ", ".join(wrong)
        )
