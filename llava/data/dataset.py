"""Records and image files to training samples. Shapes: L tokens, H x W the tower's input in pixels."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from llava.constants import DEFAULT_IM_START_TOKEN
from llava.conversation import SeparatorStyle, with_routing_token
from llava.data.encode import encode_uncut, image_to_front, template_of, training_segments
from llava.data.mixes import name_sources, source_of
from llava.data.records import Record, raise_problems
from llava.mm_utils import load_image, process_images

_ASPECT_RATIOS = ("square", "pad")


class Sample(TypedDict):
    """What the collator gets."""

    id: str
    source: int
    """Number of its source in `LlavaDataset.sources`."""
    input_ids: Tensor
    """(L,) int64 with IMAGE_TOKEN_INDEX in place of the image."""
    labels: Tensor
    """(L,) int64 with IGNORE_INDEX where nothing is learned."""
    image: Tensor
    """(3, H, W) normalised pixels; zeros for a text-only sample, so that every rank runs the vision tower."""


class LlavaDataset(Dataset[Sample]):
    """Training samples by index; every record's text is checked here, its image when it is asked for."""

    def __init__(
        self,
        records: Sequence[Record],
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        *,
        version: str,
        image_folder: str | Path,
        image_aspect_ratio: str = "square",
        routing_token: str | None = None,
        routing_placement: Literal["first_turn", "every_turn"] = "first_turn",
    ) -> None:
        if image_aspect_ratio not in _ASPECT_RATIOS:
            raise ValueError(
                f"image_aspect_ratio must be one of {_ASPECT_RATIOS} in training, got {image_aspect_ratio!r}"
            )
        self.records = records
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.version = version
        self.image_folder = Path(image_folder)
        self.image_aspect_ratio = image_aspect_ratio
        self.routing_token = routing_token
        self.routing_placement: Literal["first_turn", "every_turn"] = routing_placement
        vocabulary = tokenizer.get_vocab()
        self.mm_use_im_start_end = (
            DEFAULT_IM_START_TOKEN in vocabulary
        )  # the model was built with these tokens
        self._check_records()
        self._check_routing_token(vocabulary)
        self.modality_lengths = [_modality_length(record) for record in records]
        """Words of each sample; negative for a text-only one, as the sampler expects."""
        self.sources, self.source_numbers = name_sources([source_of(record) for record in records])
        """Names of the sources that a log tells apart, and every sample's among them."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        messages = list(record.conversations)
        has_image = record.image is not None
        if has_image:
            # the routing token ends the text, so the image has to leave the end of the text first
            messages = [{**message, "value": image_to_front(message["value"])} for message in messages]
        if has_image and self.routing_token is not None:
            messages = with_routing_token(
                messages, token=self.routing_token, placement=self.routing_placement
            )
        try:
            encoded = encode_uncut(  # the collator cuts
                messages,
                self.tokenizer,
                version=self.version,
                has_image=has_image,
                mm_use_im_start_end=self.mm_use_im_start_end,
            )
            image = self._pixels(record)
        except ValueError as error:
            raise ValueError(f"{record.source}, sample {record.id}: {error}") from error
        return {
            "id": record.id,
            "source": self.source_numbers[index],
            "input_ids": encoded.input_ids,
            "labels": encoded.labels,
            "image": image,
        }

    def _pixels(self, record: Record) -> Tensor:
        """Return a record's pixels (3, H, W), or zeros of that shape."""
        if record.image is None:
            size = self.image_processor.crop_size
            return torch.zeros(3, size["height"], size["width"])
        image = load_image(self.image_folder / record.image)
        settings = SimpleNamespace(image_aspect_ratio=self.image_aspect_ratio)
        return process_images([image], self.image_processor, settings)[0]  # (3, H, W)

    def _check_records(self) -> None:
        """Refuse records without anything to learn in this version, all in one error."""
        if not self.records:
            raise ValueError("the dataset is empty: training needs at least one sample")
        template = template_of(self.version)
        problems: list[str] = []
        for record in self.records:
            try:
                training_segments(record.conversations, template, has_image=record.image is not None)
            except ValueError as error:
                problems.append(f"sample {record.id}: {error}")
        raise_problems(problems, self.records[0].source, len(self.records))

    def _check_routing_token(self, vocabulary: dict[str, int]) -> None:
        """Refuse a routing token that the tokenizer would tear apart, or that the format has no place for."""
        if self.routing_token is None:
            return
        if template_of(self.version).sep_style is SeparatorStyle.PLAIN:
            raise ValueError(
                f"version {self.version} has no question that could end with {self.routing_token}: "
                "train with a dialogue version, or without a routing token"
            )
        if self.routing_token not in vocabulary:
            raise ValueError(
                f"the tokenizer has no token {self.routing_token}: add it before building the dataset"
            )


def _modality_length(record: Record) -> int:
    """Count a sample's words; text-only samples count negative."""
    num_words = sum(len(message["value"].split()) for message in record.conversations)
    return num_words if record.image is not None else -num_words
