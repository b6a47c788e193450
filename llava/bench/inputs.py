"""The batches that are timed: prompts of one image and random text, all of one length.

Shapes: B samples, S ids with sentinels, T merged length, V visual tokens of an image, D model width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from llava.bench.shapes import PATCH, Shape
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.merging import Block
from llava.model.multimodal import Prompts, VisualTokens, splice_images


@dataclass(frozen=True)
class Batch:
    """One batch in the forms that the models take it in."""

    ours: dict[str, Any]
    """Arguments of our model's forward pass."""
    reference: dict[str, Any]
    """The same for transformers' model."""
    merged: dict[str, Any]
    """Arguments of the decoder behind the splice: embeddings, mask, structure."""
    labels: Tensor | None
    """(B, T) for training, -100 where nothing is supervised."""
    size: int
    """B."""

    @property
    def plain(self) -> dict[str, Any]:
        """What a model that knows no structure takes of `merged`."""
        return {name: self.merged[name] for name in ("inputs_embeds", "attention_mask")}


@torch.no_grad()
def make_batch(
    model: LlavaLlamaForCausalLM, shape: Shape, *, size: int, seed: int, has_tower: bool, answer: int = 0
) -> Batch:
    """Draw a batch: half of the text stands in front of the image, half behind it.

    Args:
        model: ours, dense; embeds the text and says where the batch is to lie.
        shape: lengths of image and text.
        size: B.
        seed: of ids, pixels and visual tokens.
        has_tower: whether pixels go in; otherwise embeddings that are already merged.
        answer: supervised tokens at the end, for training.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = model.lm_head.weight
    text = torch.randint(3, shape.vocab_size - 1, (size, shape.text), generator=generator)
    front = shape.text // 2
    ids = torch.cat(
        [text[:, :front], torch.full((size, 1), IMAGE_TOKEN_INDEX), text[:, front:]], dim=1
    )  # (B, S)
    labels = ids.masked_fill(torch.arange(ids.shape[1]) < ids.shape[1] - answer, IGNORE_INDEX)
    tokens = torch.randn(size * shape.visual, shape.hidden_size, generator=generator) * weight.std().cpu()
    visual = VisualTokens(
        tokens.to(weight), tuple((Block(shape.visual, (shape.grid, shape.grid)),) for _ in range(size))
    )
    on_device = ids.to(weight.device)
    spliced = splice_images(
        Prompts.read(ids, None, labels if answer else None), on_device, visual, model.get_input_embeddings()
    )
    merged = {
        "inputs_embeds": spliced.inputs_embeds,
        "attention_mask": spliced.attention_mask.long(),
        "mm_token_type_ids": spliced.mm_token_type_ids,
        "visual_grids": spliced.visual_grids,
    }
    plain = {name: merged[name] for name in ("inputs_embeds", "attention_mask")}
    truth = None if spliced.labels is None else torch.from_numpy(spliced.labels).to(weight.device)
    if not has_tower:
        return Batch(merged, plain, merged, truth, size)
    side = PATCH * shape.grid
    pixels = torch.randn(size, 3, side, side, generator=generator).to(weight)
    image = torch.full((size, shape.visual), shape.vocab_size - 1)
    expanded = torch.cat([text[:, :front], image, text[:, front:]], dim=1).to(weight.device)  # (B, T)
    reference = {
        "input_ids": expanded,
        "pixel_values": pixels,
        "attention_mask": torch.ones_like(expanded),
    }
    return Batch({"input_ids": on_device, "images": pixels}, reference, merged, truth, size)


def pixels_of(model: LlavaLlamaForCausalLM, pixels: Tensor) -> Tensor:
    """Give images (B, 3, h, w) at the size that a model's tower reads, which a reduction may make smaller."""
    side = model.get_vision_tower().image_side
    if pixels.shape[-1] == side:
        return pixels
    return functional.interpolate(pixels, (side, side), mode="area")
