"""Samples to one right-padded batch. Shapes: B samples, L tokens of the longest, H x W pixels."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llava.constants import IGNORE_INDEX
from llava.data.dataset import Sample

logger = logging.getLogger(__name__)


class LlavaCollator:
    """Cut samples to the model's length, then pad them; the mask comes from lengths, not from the pad id."""

    def __init__(self, pad_token_id: int, model_max_length: int) -> None:
        if model_max_length < 1:
            raise ValueError(f"model_max_length must be at least 1, got {model_max_length}")
        self.pad_token_id = pad_token_id
        self.model_max_length = model_max_length

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return input_ids, labels (B, L), attention_mask (B, L) bool, images (B, 3, H, W) or a list of them.

        A sample whose answers all lie behind the cut stays in the batch and is logged by its id: a long run
        should not end on data that is good but long.
        """
        for sample in samples:
            self._report_cut(sample)
        ids = [sample["input_ids"][: self.model_max_length] for sample in samples]
        labels = [sample["labels"][: self.model_max_length] for sample in samples]
        lengths = torch.tensor([len(row) for row in ids])  # (B,)
        input_ids = pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id)  # (B, L)
        return {
            "input_ids": input_ids,
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE_INDEX),  # (B, L)
            "attention_mask": torch.arange(input_ids.shape[1]) < lengths[:, None],  # (B, L)
            "images": _stacked([sample["image"] for sample in samples]),
        }

    def _report_cut(self, sample: Sample) -> None:
        """Log a sample that has nothing left to learn after the cut."""
        learned = sample["labels"] != IGNORE_INDEX  # (L,)
        if not learned[: self.model_max_length].any():
            logger.warning(
                "sample %s: all %d tokens to learn lie behind model_max_length %d (it has %d tokens), "
                "so it teaches nothing: shorten it or raise model_max_length",
                sample["id"],
                int(learned.sum()),
                self.model_max_length,
                len(learned),
            )


def _stacked(images: list[Tensor]) -> Tensor | list[Tensor]:
    """Stack images of one shape (B, 3, H, W); others stay a list."""
    return torch.stack(images) if len({image.shape for image in images}) == 1 else images
