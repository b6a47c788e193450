"""Weights into a model: what is missing or left over is an error, and the vocabulary fits the tokenizer."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedTokenizerBase
from transformers.utils import GENERATION_CONFIG_NAME, logging

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.model.clip_states import check_layer
from llava.model.config import LlavaConfig
from llava.model.crop_shape import crop_shape
from llava.model.files import find_file, find_weights, read_object
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.merging import NO_GRID, check_merge_type
from llava.model.projector_options import check_projector
from llava.model.reduction import check_divides, check_reachable, from_dict, reducer_config, routing_prompt
from llava.model.released import renaming
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

ADDED_LATER = ("model.reducer.policy.advantage_moments",)
"""Running state of training that checkpoints of earlier versions lack; it starts afresh."""

UNREADABLE = (OSError, SafetensorError, pickle.UnpicklingError, EOFError, KeyError, RuntimeError)
"""What transformers and torch raise on damaged files."""

MODES = ("do_sample", "num_beams", "use_cache", "return_dict_in_generate")
"""Fields of generation_config.json that other fields depend on."""


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
        ValueError: the weights can't be read, or don't fit the configuration (all names are listed), or a
            package that the options need isn't installed.
    """
    renamed = renaming(path, cache_dir=options.get("cache_dir"))
    if renamed.key_mapping:
        options["key_mapping"] = renamed.key_mapping
    if not renamed.has_router:
        allow_missing = [*allow_missing, "model.reducer."]
    find_weights(path, cache_dir=options.get("cache_dir"))  # names a damaged index; transformers doesn't
    try:
        loaded: Any = LlavaLlamaForCausalLM.from_pretrained(
            path,
            config=copy.deepcopy(config),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are listed below
            **options,
        )
    except torch.OutOfMemoryError:
        raise
    except UNREADABLE as error:
        raise ValueError(f"the weights in {path} can't be read: {error}") from error
    except ImportError as error:
        raise ValueError(f"{path} can't be loaded as asked for, a package is missing: {error}") from error
    model, info = loaded
    _require_all(path, config, info, allow_missing, replaced)
    _repair_generation_config(model, path, cache_dir=options.get("cache_dir"))
    return model


def _require_all(
    path: str, config: LlavaConfig, info: Any, allow_missing: Sequence[str], replaced: Sequence[str]
) -> None:
    """Refuse what from_pretrained missed, had left over or found in another shape, unless it is allowed."""
    missing = [key for key in info["missing_keys"] if not key.startswith((*allow_missing, *ADDED_LATER))]
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
            f"incomplete or its config.json describes another model"
        )


def check_images(config: LlavaConfig) -> None:
    """Refuse, before weights are loaded, settings that the first image would fail on.

    Raises:
        ValueError: the projector or the way to join crops isn't known, its options don't suit the tower, or
            the tower has no such layer.
    """
    if config.mm_vision_tower is None:
        return
    check_merge_type(config.mm_patch_merge_type)
    layers: Any = vision_config(config.mm_vision_tower).num_hidden_layers
    check_layer(config.mm_vision_select_layer, layers)
    check_projector(config)


def check_kernels(config: LlavaConfig, *, is_training: bool = False) -> None:
    """Refuse, before weights are loaded, a reduction whose kernels don't fit the grid of visual tokens.

    In training also a budget that they can't meet.
    """
    reduction = reducer_config(config.reduction)
    if reduction is not None and reduction.windows and config.mm_vision_tower is not None:
        if config.mm_vision_select_feature != "patch":
            raise ValueError(
                f"--reduction {reduction.method} needs a grid of visual tokens, which "
                f"mm_vision_select_feature={config.mm_vision_select_feature!r} doesn't leave; use patch"
            )
        grid = crop_shape(config, vision_config(config.mm_vision_tower)).grid
        if grid == NO_GRID:
            raise ValueError(
                f"--reduction {reduction.method} pools grids of visual tokens, but those of "
                f"mm_projector_type={config.mm_projector_type} form none; use a projector whose tokens do "
                f"(docs/projectors.md)"
            )
        check_divides(reduction, grid)
        if is_training:
            check_reachable(
                reduction,
                grid,
                num_layers=config.num_hidden_layers,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
            )


def check_routing_row(tokenizer: PreTrainedTokenizerBase, model: LlavaLlamaForCausalLM, path: str) -> None:
    """Refuse a trained router without its routing token: a new row would be read as if it had been learned.

    Raises:
        ValueError: the vocabulary in `path` has no row for the token.
    """
    reduction = model.config.reduction
    prompt = routing_prompt(None if reduction is None else from_dict(reduction))
    if prompt is None:
        return
    rows = model.model.embed_tokens.num_embeddings
    index = tokenizer.get_vocab().get(prompt[0], len(tokenizer))
    if index >= rows:
        raise ValueError(
            f"{path} has a router that reads {prompt[0]}, but only {rows} rows of embeddings, and the "
            f"token's would be row {index}: the weights or the tokenizer's files aren't those it was trained "
            f"with"
        )


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


def _repair_generation_config(model: LlavaLlamaForCausalLM, path: str, *, cache_dir: str | None) -> None:
    """Drop, with a notice, fields that contradict the way of decoding, and tell of a file that isn't read.

    Vicuna's generation_config.json has such fields, and saving it would fail.
    """
    file = find_file(path, GENERATION_CONFIG_NAME, cache_dir=cache_dir)
    try:
        _ = None if file is None else read_object(file)
    except ValueError as error:
        logger.warning("%s; decoding is greedy, with the token ids of config.json", error)
    generation = model.generation_config
    if generation is None:
        return
    modes = {name: getattr(generation, name) for name in MODES}
    wrong = [
        name
        for name, value in vars(generation).items()
        if name not in modes and _is_contradictory(modes, name, value)
    ]
    defaults = GenerationConfig()
    for name in wrong:
        setattr(generation, name, getattr(defaults, name))
    if wrong:
        logger.warning(
            "generation_config sets %s, which belongs to another way of decoding (do_sample, num_beams); "
            "reset",
            ", ".join(wrong),
        )


def _is_contradictory(modes: dict[str, Any], name: str, value: Any) -> bool:
    """Ask transformers, which has no list to ask, whether it would save this field beside these modes."""
    alone = GenerationConfig(**modes)
    setattr(alone, name, value)
    try:
        alone.validate(strict=True)
    except ValueError:
        return True
    return False
