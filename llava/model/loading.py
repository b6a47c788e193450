"""Weights into a model: what is missing or left over is an error, and the vocabulary fits the tokenizer."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.utils import logging

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.config import LlavaConfig
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.reduction import check_divides, from_dict, routing_prompt
from llava.model.vision_tower import vision_config

logger = logging.get_logger(__name__)

IGNORED_KEYS = (
    "rotary_emb.inv_freq",
    "vision_tower.vision_tower.vision_model.embeddings.position_ids",
    "model.image_newline",
)
"""Buffers of old checkpoints, and the newline token, which only mm_patch_merge_type=spatial_unpad reads."""

TOWER = "vision_tower."
"""In the names of a tower's weights. A frozen tower, which DeepSpeed saves along, isn't read from there."""


def load_weights(
    path: str,
    config: LlavaConfig,
    *,
    dtype: torch.dtype,
    allow_missing: Sequence[str],
    replaced: Sequence[str] = (),
    **options: Any,
) -> LlavaLlamaForCausalLM:
    """Load weights and refuse every key that is missing or left over without a reason.

    Args:
        path: directory or hub id.
        config: describes the model; it becomes the model's own and isn't shared.
        dtype: of all weights, whatever dtype they were saved in.
        allow_missing: beginnings of the names that need not be there.
        replaced: beginnings of the names whose weights come from elsewhere later: whatever is there under
            them, also of another shape, is of no interest.
        options: for transformers' from_pretrained.

    Raises:
        ValueError: the weights can't be read, or don't fit the configuration; all names are listed.
    """
    try:
        loaded: Any = LlavaLlamaForCausalLM.from_pretrained(
            path,
            config=copy.deepcopy(config),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed below
            **options,
        )
    except (OSError, SafetensorError, pickle.UnpicklingError) as error:
        raise ValueError(f"the weights in {path} can't be read: {error}") from error
    model, info = loaded
    missing = [key for key in info["missing_keys"] if not key.startswith(tuple(allow_missing) or "\0")]
    own_tower = config.unfreeze_mm_vision_tower
    unexpected = [
        key
        for key in info["unexpected_keys"]
        if not key.startswith(tuple(replaced) or "\0")
        and not any(part in key for part in IGNORED_KEYS)
        and (own_tower or TOWER not in key)
    ]
    mismatched = [key for key in info["mismatched_keys"] if not key[0].startswith(tuple(replaced) or "\0")]
    if (
        not own_tower
        and any(TOWER in key for key in info["unexpected_keys"])
        and path != config.mm_vision_tower
    ):
        logger.warning(
            "%s holds vision weights that aren't used: unfreeze_mm_vision_tower is false, the tower is %s",
            path,
            config.mm_vision_tower,
        )
    if missing or unexpected or mismatched:
        raise ValueError(
            f"the weights in {path} don't fit its config.json: missing {sorted(missing)}, unexpected "
            f"{sorted(unexpected)}, of another shape {sorted(map(str, mismatched))}; the directory is "
            f"incomplete or its "
            f"config.json describes another model"
        )
    _repair_generation_config(model)
    return model


def check_kernels(config: LlavaConfig) -> None:
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


def add_tokens(tokenizer: PreTrainedTokenizerBase, model: LlavaLlamaForCausalLM) -> None:
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
