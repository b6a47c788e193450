"""What a forward pass was given: whether there are images to merge, and whether they can be.

Shapes: B samples, S ids with sentinels.
"""

from collections.abc import Sequence

from torch import Tensor
from transformers.cache_utils import Cache

Images = Tensor | Sequence[Tensor]
"""(K, 3, h, w), (K, C, 3, h, w), or a list of (3, h, w) or (C, 3, h, w): K images of C crops."""
ImageSizes = Sequence[Sequence[int]]
"""Width and height of every image in pixels, before it was cut into crops."""


def is_step(input_ids: Tensor) -> bool:
    """Whether ids (B, 1) are a step of decoding: one token per row, and no image among them."""
    return input_ids.shape[1] == 1 and not bool((input_ids < 0).any())


def images_to_merge(
    input_ids: Tensor | None, images: Images | None, past_key_values: Cache | None
) -> Images | None:
    """Give the images that are to be merged into ids (B, S): None where there are none.

    A decoding step that carries the prompt's images along, as loops written for upstream do, merges nothing.

    Raises:
        ValueError: images without ids or behind a filled cache, or sentinels without images.
    """
    is_continued = past_key_values is not None and past_key_values.get_seq_length() > 0
    if images is None:
        if input_ids is not None and not is_continued and bool((input_ids < 0).any()):
            raise ValueError("the prompt has an image sentinel (-200), but images is None")
        return None
    if input_ids is None:
        raise ValueError("images go with input_ids that hold -200 where they belong")
    if is_continued and is_step(input_ids):
        return None
    if is_continued:
        raise ValueError(
            "images can't be merged behind a filled cache; give the whole dialogue's ids without one, or "
            "leave images out"
        )
    return images
