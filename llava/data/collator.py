"""Samples to one right-padded batch. Shapes: B samples, L ids of the longest, H x W pixels.

An image is one id here and becomes N visual tokens in the model, which cuts what it has merged:

    ids [1, image, 5, 6, 7], N = 4, model_max_length 6: 1 v v v v 5 | 6 7, so [1, image, 5] are kept
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.dataset import Sample

logger = logging.getLogger(__name__)


class LlavaCollator:
    """Cut samples to the model's length, then pad them; the mask comes from lengths, not from the pad id."""

    def __init__(self, pad_token_id: int, model_max_length: int, *, tokens_per_image: int = 1) -> None:
        """Take N, the visual tokens of an image; 1 cuts by ids, as upstream's data does."""
        if model_max_length < 1:
            raise ValueError(f"model_max_length must be at least 1, got {model_max_length}")
        self.pad_token_id = pad_token_id
        self.model_max_length = model_max_length
        self.tokens_per_image = tokens_per_image

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return input_ids, labels (B, L), attention_mask (B, L) bool, images (B, 3, H, W) or a list of them.

        Also sources, B numbers for the log, which stay on the host: whoever calls the model takes them out.

        Labels that the model would cut off are cut here already, since Trainer counts them. A sample whose
        answers all lie behind the cut stays in the batch and is logged by its id: a long run should not end
        on data that is good but long.
        """
        kept = [self._kept(sample) for sample in samples]
        ids = [sample["input_ids"][:length] for sample, length in zip(samples, kept, strict=True)]
        labels = [sample["labels"][:length] for sample, length in zip(samples, kept, strict=True)]
        lengths = torch.tensor([len(row) for row in ids])  # (B,)
        input_ids = pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id)  # (B, L)
        return {
            "input_ids": input_ids,
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),  # (B, L)
            "attention_mask": torch.arange(input_ids.shape[1]) < lengths[:, None],  # (B, L)
            "images": _stacked([sample["image"] for sample in samples]),
            "sources": [sample["source"] for sample in samples],
        }

    def _kept(self, sample: Sample) -> int:
        """Count the ids that begin in front of the cut; log a sample that has nothing to learn among them."""
        is_image = sample["input_ids"] == IMAGE_TOKEN_INDEX  # (L,)
        widths = torch.where(is_image, self.tokens_per_image, 1)  # (L,)
        starts = widths.cumsum(0) - widths  # (L,) each id's place after merging
        kept = int((starts < self.model_max_length).sum())
        learned = sample["labels"] != IGNORE_INDEX  # (L,)
        if not learned[:kept].any():
            logger.warning(
                "sample %s: all %d tokens to learn lie behind model_max_length %d (it has %d tokens%s), "
                "so it teaches nothing: shorten it or raise model_max_length",
                sample["id"],
                int(learned.sum()),
                self.model_max_length,
                int(widths.sum()),
                f", {self.tokens_per_image} of them for each image" if is_image.any() else "",
            )
        return kept


def _stacked(images: list[Tensor]) -> Tensor | list[Tensor]:
    """Stack images of one shape (B, 3, H, W); others stay a list."""
    return torch.stack(images) if len({image.shape for image in images}) == 1 else images
