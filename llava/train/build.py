"""The model that a training stage starts from: a base LLM, or a LLaVA checkpoint to continue."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from llava.model.config import read_config
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.loading import add_tokens, check_kernels, load_weights
from llava.model.projector import load_projector
from llava.model.reduction import DpnConfig, from_dict
from llava.model.tokenizer import load_tokenizer
from llava.model.vision_tower import vision_config

DEFAULT_CONTEXT = 2048


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
    check_kernels(config)
    new = [] if started_as_llava else ["model.mm_projector.", "model.image_newline"]
    new += [] if had_reduction else ["model.reducer."]
    options: dict[str, Any] = {"cache_dir": cache_dir}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    model = load_weights(model_name_or_path, config, dtype=dtype, allow_missing=new, **options)
    add_tokens(tokenizer, model)
    if vision_tower is None:
        return tokenizer, model, None
    model.get_vision_tower().load_model(dtype=dtype)
    if pretrain_mm_mlp_adapter is not None:
        load_projector(model.model.mm_projector, Path(pretrain_mm_mlp_adapter))
    return tokenizer, model, model.get_vision_tower().image_processor
