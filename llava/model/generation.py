"""From a prompt with images, or the next turn of a dialogue, to what transformers' `generate` takes.

Shapes: B prompts, S ids with sentinels, P cached tokens, D model width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from packaging.version import Version
from torch import Tensor
from transformers import __version__ as transformers_version
from transformers.cache_utils import Cache

from llava.constants import IGNORE_INDEX
from llava.model.budgets import routing_arguments
from llava.model.inputs import Images, ImageSizes
from llava.model.multimodal import Spliced
from llava.model.reduction import full_mask, past_mask, routing_of

if TYPE_CHECKING:
    from llava.model.llava_llama import LlavaLlamaForCausalLM

REFUSED = {
    "inputs_embeds": "give ids with -200 at images",
    "prefill_chunk_size": "prompts are read in one piece, since their routes are chosen from the whole",
    "guidance_scale": "its second, unconditional pass reads ids, and merged prompts have none; leave it out",
    "assistant_model": "an assistant reads ids, and merged prompts have none; prompt_lookup_num_tokens works",
    "assistant_early_exit": "it would draft with the first layers of this decoder on ids, and merged prompts "
    "have none; prompt_lookup_num_tokens works",
}
"""Arguments of `generate` that can't work with prompts of images, and what to do instead."""
LOOKUP_SINCE = Version("5.23")


def generation_arguments(
    model: "LlavaLlamaForCausalLM",
    inputs: Tensor | None,
    images: Images | None,
    image_sizes: ImageSizes | None,
    kwargs: dict[str, Any],
) -> tuple[dict[str, Any], Spliced | None]:
    """Merge images into prompts (B, S), padded on the left, and keep all other arguments.

    Behind a filled `past_key_values`, `inputs` are either the whole dialogue (with its images), or only the
    ids that the cache doesn't hold yet, beginning with the last one that was generated. They are taken for
    new ones where `attention_mask` covers the cache as well, where the cache holds routed images and none
    are given, or where they are fewer than the cache's.

    A whole dialogue is routed by the last token of its first turn, as in training, if `first_turn_lengths`
    (B,) says how many of a row's ids are in it; else by the last token of all.

    Returns:
        the arguments, and the merged batch where there are images.

    Raises:
        ValueError: arguments that can't work here (`REFUSED`), no ids, sentinels without images, or a cache
            that doesn't fit the ids, routes or a budget that the model can't follow.
    """
    for name, reason in REFUSED.items():
        if kwargs.get(name) is not None:
            raise ValueError(f"generate() doesn't take {name} here: {reason}")
    if kwargs.get("prompt_lookup_num_tokens") is not None and Version(transformers_version) < LOOKUP_SINCE:
        raise ValueError(
            f"prompt_lookup_num_tokens of merged prompts needs transformers {LOOKUP_SINCE} or newer, this "
            f"is {transformers_version}: older ones lose the prompt's mask; leave it out"
        )
    ids = inputs if inputs is not None else kwargs.pop("input_ids", None)
    if ids is None:
        raise ValueError("generate() needs the prompt's ids, (B, S)")
    first_turns = kwargs.pop("first_turn_lengths", None)
    mask = kwargs.pop("attention_mask", None)
    kwargs.pop("position_ids", None)
    kwargs = _never_routing_token(model, routing_arguments(model, len(ids), kwargs))
    cache: Cache | None = kwargs.get("past_key_values")
    if images is None and (ids < 0).any():
        raise ValueError("the prompt has an image sentinel (-200), but images is None")
    if images is None and cache is not None and _is_continued(cache, ids, mask):
        _refuse_late_routes(cache, kwargs)
        return {**_continued(model, ids, mask, cache), **kwargs}, None
    if images is None:
        if mask is not None:  # padding first, then the tokens in their order
            order = torch.sort(mask.bool(), dim=1, stable=True).indices  # (B, S)
            ids, mask = ids.gather(1, order), mask.gather(1, order)
        _require_same_past(cache, mask, ids.shape[1])
        _refuse_late_routes(cache, kwargs)
        return {"inputs_embeds": model.get_input_embeddings()(ids), "attention_mask": mask, **kwargs}, None
    later = None if first_turns is None else _later_turns(ids, mask, first_turns)
    spliced = model.splice(ids, mask, later, images, image_sizes, "left")
    _require_same_past(cache, spliced.attention_mask, spliced.attention_mask.shape[1])
    _refuse_late_routes(cache, kwargs)
    arguments = {
        "inputs_embeds": spliced.inputs_embeds,
        "attention_mask": spliced.attention_mask.long(),
        "mm_token_type_ids": spliced.mm_token_type_ids,
        "visual_grids": spliced.visual_grids,
    }
    return {**arguments, **kwargs}, spliced


def _later_turns(ids: Tensor, mask: Tensor | None, first_turns: Sequence[int]) -> Tensor:
    """Make labels (B, S) of everything behind the first turn, in front of which a router reads.

    Raises:
        ValueError: another number of rows, or a first turn that is empty or longer than its row.
    """
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    place = real.long().cumsum(1)  # (B, S) from 1
    lengths = torch.as_tensor(first_turns, device=ids.device)
    if lengths.shape != ids.shape[:1] or (lengths < 1).any() or (lengths > place[:, -1]).any():
        raise ValueError(
            f"first_turn_lengths needs one number per prompt, from 1 to its ids ({place[:, -1].tolist()}), "
            f"got {lengths.tolist()}"
        )
    return ids.masked_fill(~real | (place <= lengths[:, None]), IGNORE_INDEX)


def _never_routing_token(model: "LlavaLlamaForCausalLM", kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keep the routing token out of answers: it marks a place in a prompt, and training never predicts it.

    Its row of the head is random or a mean of others, so nothing else would.
    """
    token = model.config.router_token_id
    if token is None:
        return kwargs
    settings = kwargs.get("generation_config") or model.generation_config
    given = kwargs.get("suppress_tokens") or getattr(settings, "suppress_tokens", None) or ()
    return {**kwargs, "suppress_tokens": [*given, token]}


def _is_continued(cache: Cache, ids: Tensor, mask: Tensor | None) -> bool:
    """Whether ids (B, S) without images are only what a cache doesn't hold yet."""
    past = cache.get_seq_length()
    if not past:
        return False
    covers_cache = mask is not None and mask.shape[1] > ids.shape[1]
    routing = routing_of(cache)
    return (
        covers_cache or ids.shape[1] <= past or (routing is not None and bool(routing.visual_counts[0].any()))
    )


def _continued(
    model: "LlavaLlamaForCausalLM", ids: Tensor, mask: Tensor | None, cache: Cache
) -> dict[str, Any]:
    """Put new ids (B, S) behind a cache of P tokens.

    transformers takes embeddings for the whole dialogue and drops as many as are cached, so as many zeros
    stand in for them.

    Raises:
        ValueError: several rows and no mask: what of their cache is padding can't be known.
    """
    (batch, new), past = ids.shape, cache.get_seq_length()
    if mask is None and batch > 1:
        raise ValueError(
            f"give attention_mask (B, {past + new}) over the {past} cached tokens and the {new} new ones: "
            f"rows of a batch may hold padding in front of their prompts and behind their answers"
        )
    embeds = model.get_input_embeddings()(ids)  # (B, S, D)
    cached = embeds.new_zeros(batch, past, embeds.shape[-1])
    full = full_mask(cache, mask, batch, new, ids.device)  # (B, P + S)
    return {"inputs_embeds": torch.cat([cached, embeds], dim=1), "attention_mask": full.long()}


def _refuse_late_routes(cache: Cache | None, given: dict[str, Any]) -> None:
    """Refuse routes and budgets for a dialogue whose first part is cached.

    Raises:
        ValueError: naming which of them was given.
    """
    names = [name for name in ("routes", "router_shift") if given.get(name) is not None]
    if names and cache is not None and cache.get_seq_length():
        named = "routes" if names == ["routes"] else "a budget (router_shift)"
        raise ValueError(
            f"{named} behind a filled cache would change nothing: routes are chosen when the prompt is first "
            f"read; leave them out, or give the whole dialogue without the cache"
        )


def _require_same_past(cache: Cache | None, mask: Tensor | None, length: int) -> None:
    """Refuse a whole dialogue (B, length) that doesn't begin as the cache does.

    Raises:
        ValueError: fewer tokens than are cached, or rows that are padded otherwise.
    """
    past = 0 if cache is None else cache.get_seq_length()
    if cache is None or not past:
        return
    if length <= past:
        raise ValueError(
            f"past_key_values holds {past} tokens, but the dialogue has only {length}; give all of it, or "
            f"only the ids behind the cache without images"
        )
    prefix = past_mask(cache)
    if prefix is None:
        return
    given = torch.ones_like(prefix) if mask is None else mask[:, : prefix.shape[1]].to(prefix)
    if prefix.shape != given.shape or not torch.equal(prefix, given):
        raise ValueError(
            "the rows of this dialogue are padded otherwise than those in past_key_values, so cached tokens "
            "would stand in the wrong places; give only the ids behind the cache with attention_mask over "
            "all tokens, or leave the cache out"
        )


def prompt_counts(
    inputs: Tensor, mask: Tensor | None, spliced: Spliced | None
) -> tuple[list[int], list[int]]:
    """Count the tokens of every prompt in front of the decoder, and the visual ones among them."""
    if spliced is not None:
        return spliced.lengths, spliced.visual_counts
    batch, length = inputs.shape
    return ([length] * batch if mask is None else mask.sum(1).tolist()), [0] * batch
