"""The model that a training stage starts from: a base LLM, or a LLaVA checkpoint to continue."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.model.config import LlavaConfig, read_config
from llava.model.files import read_tensors
from llava.model.front import check_front
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.loading import add_tokens, check_images, check_kernels, check_routing_row, load_weights
from llava.model.parts import EMBEDDING, own_names, put_into
from llava.model.projector import gathered, load_projector
from llava.model.projector_options import all_options, check_same_options
from llava.model.reduction import MethodConfig, changed_fields, from_dict
from llava.model.tokenizer import load_tokenizer
from llava.model.vision_tower import vision_config

DEFAULT_CONTEXT = 2048


def build_for_training(  # noqa: PLR0913 - one argument per flag
    *,
    model_name_or_path: str,
    vision_tower: str | None,
    mm_projector_type: str = "linear",
    mm_projector_options: Mapping[str, Any] | None = None,
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
    reduction: MethodConfig | None = None,
    dtype: torch.dtype = torch.float32,
    new_dtype: torch.dtype | None = None,
    attn_implementation: str | None = None,
    cache_dir: str | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedTokenizerBase, LlavaLlamaForCausalLM, Any]:
    """Build the model that a training stage starts from: a base LLM, or a LLaVA checkpoint to continue.

    All is loaded and checked; only the tower is frozen. A new reduction starts with fresh routers; a
    checkpoint's own is kept. Arguments are the flags of the same names, and besides `dtype` of the weights,
    `new_dtype` of projector and reducer (unset: the same) and `quantization`, options of `from_pretrained`.

    Raises:
        ValueError: missing weights that no new module explains, or flags that contradict the checkpoint.
    """
    fields = {
        "mm_vision_tower": vision_tower,
        "mm_projector_type": mm_projector_type,
        "mm_projector_options": mm_projector_options,
        "mm_vision_select_layer": mm_vision_select_layer,
        "mm_vision_select_feature": mm_vision_select_feature,
        "mm_patch_merge_type": mm_patch_merge_type,
        "mm_use_im_start_end": mm_use_im_start_end,
        "mm_use_im_patch_token": mm_use_im_patch_token,
        "image_aspect_ratio": image_aspect_ratio,
        "tokenizer_model_max_length": model_max_length,
        "tokenizer_padding_side": "right",
        "tune_mm_mlp_adapter": tune_mm_mlp_adapter,
        "use_mm_proj": True,  # this and the next two are written as upstream does, and read by nobody
        "freeze_mm_mlp_adapter": freeze_mm_mlp_adapter,
        "mm_projector_lr": mm_projector_lr,
    }
    config, may_miss = configure(model_name_or_path, fields, reduction, cache_dir)
    tokenizer = load_tokenizer(model_name_or_path, model_max_length=model_max_length, cache_dir=cache_dir)
    chosen = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    options: dict[str, Any] = {"cache_dir": cache_dir, **chosen, **(quantization or {})}
    model = load_weights(model_name_or_path, config, dtype=dtype, allow_missing=may_miss, **options)
    if "model.reducer." not in may_miss:  # it continues a router, which has learned its token
        check_routing_row(tokenizer, model, model_name_or_path)
    add_tokens(tokenizer, model)
    if vision_tower is None:
        return tokenizer, model, None
    tower = model.get_vision_tower()
    tower.load_model(dtype=dtype, device=model.device if quantization else None)
    _prepare_new(model, new_dtype or dtype, pretrain_mm_mlp_adapter)
    return tokenizer, model, tower.image_processor


def _prepare_new(model: LlavaLlamaForCausalLM, dtype: torch.dtype, projector: str | None) -> None:
    """Give projector and reducer the dtype they learn in, and load what stage 1 has trained."""
    for module in (model.model.mm_projector, model.model.reducer):
        if module is not None:
            module.to(dtype)
    if projector is not None:
        _load_stage_one(model, Path(projector))


def configure(
    path: str, fields: Mapping[str, Any], reduction: MethodConfig | None, cache_dir: str | None
) -> tuple[LlavaConfig, list[str]]:
    """Give the start's configuration with the flags' values, and the modules that its weights lack.

    Raises:
        ValueError: flags that contradict the checkpoint, or ask for what isn't supported.
    """
    config = read_config(path, cache_dir=cache_dir)
    is_llava, had_reduction = config.mm_vision_tower is not None, config.reduction is not None
    had_newline = is_llava and "unpad" in config.mm_patch_merge_type
    if is_llava and config.mm_projector_type != fields["mm_projector_type"]:
        raise ValueError(
            f"{path} has a projector of type {config.mm_projector_type}, so training can't go on with "
            f"--mm_projector_type {fields['mm_projector_type']}; name the checkpoint's type"
        )
    options = _projector_options(path, config, fields)
    if reduction is not None:
        changed = changed_fields(from_dict(config.reduction), reduction) if config.reduction else []
        if changed:
            raise ValueError(
                f"{path} was trained with another reduction than the one asked for: {', '.join(changed)}; "
                f"leave --reduction out to continue with the checkpoint's own"
            )
        config.reduction = reduction.to_dict()
    for name, value in (*fields.items(), ("mm_projector_options", options)):
        setattr(config, name, value)
    if config.mm_vision_tower is not None:
        config.mm_hidden_size = vision_config(config.mm_vision_tower).hidden_size
    check_images(config)
    check_kernels(config, is_training=True)
    check_front(config, in_training=True)
    had = {
        "model.mm_projector.": is_llava,
        "model.image_newline": had_newline,
        "model.reducer.": had_reduction,
    }
    return config, [name for name, was_there in had.items() if not was_there]


def _projector_options(path: str, config: LlavaConfig, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give all options of the flags' projector; a checkpoint that is continued keeps its own.

    Raises:
        ValueError: the flags name other options than the checkpoint's.
    """
    kind, given = fields["mm_projector_type"], fields.get("mm_projector_options")
    if config.mm_vision_tower is None:
        return all_options(kind, given)
    saved = all_options(kind, config.mm_projector_options)
    if given is not None and all_options(kind, given) != saved:
        raise ValueError(
            f"{path} has a projector {kind} with the options {saved}, so training can't go on with "
            f"--mm_projector_options {given}; leave the flag out to keep them"
        )
    return saved


def _load_stage_one(model: LlavaLlamaForCausalLM, path: Path) -> None:
    """Load a projector and, where images stand between start and end tokens, these tokens' embeddings."""
    load_projector(model.model.mm_projector, path)
    check_same_options(model.config, path)
    if not model.config.mm_use_im_start_end:
        return
    rows = own_names(read_tensors(path)).get(EMBEDDING)
    if rows is None:
        raise ValueError(
            f"{path} holds no embeddings of <im_start> and <im_end>: it was trained without them; use "
            "--mm_use_im_start_end False, or run stage 1 with True"
        )
    embeddings = [parameter for name, parameter in model.named_parameters() if name == EMBEDDING]
    with gathered(embeddings) as is_writer:
        if is_writer:
            put_into(model, {EMBEDDING: rows[-2:]}, str(path))
