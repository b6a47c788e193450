"""From a prompt with images to what transformers' `generate` takes.

Shapes: B prompts, S ids with sentinels.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llava.model.inputs import Images, ImageSizes
from llava.model.multimodal import Spliced

if TYPE_CHECKING:
    from llava.model.llava_llama import LlavaLlamaForCausalLM


def generation_arguments(
    model: "LlavaLlamaForCausalLM",
    inputs: Tensor | None,
    images: Images | None,
    image_sizes: ImageSizes | None,
    kwargs: dict[str, Any],
) -> tuple[dict[str, Any], Spliced | None]:
    """Merge images into prompts (B, S), padded on the left, and keep all other arguments.

    Returns:
        the arguments, and the merged batch where there are images.

    Raises:
        ValueError: inputs_embeds or prefill_chunk_size, no ids, or sentinels without images.
    """
    for name in ("inputs_embeds", "prefill_chunk_size"):
        if kwargs.get(name) is not None:
            raise ValueError(
                f"generate() doesn't take {name} here: give ids with -200 at images, in one piece"
            )
    ids = inputs if inputs is not None else kwargs.pop("input_ids", None)
    if ids is None:
        raise ValueError("generate() needs the prompt's ids, (B, S)")
    mask = kwargs.pop("attention_mask", None)
    kwargs.pop("position_ids", None)
    if images is None:
        if (ids < 0).any():
            raise ValueError("the prompt has an image sentinel (-200), but images is None")
        if mask is not None:  # padding first, then the tokens in their order
            order = torch.sort(mask.bool(), dim=1, stable=True).indices  # (B, S)
            ids, mask = ids.gather(1, order), mask.gather(1, order)
        return {"inputs_embeds": model.get_input_embeddings()(ids), "attention_mask": mask, **kwargs}, None
    spliced = model.splice(ids, mask, None, images, image_sizes, "left")
    arguments = {
        "inputs_embeds": spliced.inputs_embeds,
        "attention_mask": spliced.attention_mask.long(),
        "mm_token_type_ids": spliced.mm_token_type_ids,
        "visual_grids": spliced.visual_grids,
    }
    return {**arguments, **kwargs}, spliced


def prompt_counts(
    inputs: Tensor, mask: Tensor | None, spliced: Spliced | None
) -> tuple[list[int], list[int]]:
    """Count the tokens of every prompt in front of the decoder, and the visual ones among them."""
    if spliced is not None:
        return spliced.lengths, spliced.visual_counts
    batch, length = inputs.shape
    return ([length] * batch if mask is None else mask.sum(1).tolist()), [0] * batch
