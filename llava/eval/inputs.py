"""From questions to padded batches. Shapes: B questions, L prompt tokens, 3 x H x W pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
)
from llava.conversation import Conversation, with_routing_token
from llava.eval.benchmark import Question
from llava.mm_utils import load_image, process_images, tokenizer_image_token

Placement = Literal["first_turn", "every_turn"]


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """How a checkpoint wants to be asked."""

    template: Conversation
    routing: tuple[str, Placement] | None
    """Routing token and its placement, for a checkpoint whose router reads one."""
    use_start_end: bool
    """Put <im_start> and <im_end> around the image token."""

    def prompt(self, text: str) -> str:
        """Wrap a question: image token and newline before it, routing token after it, template around it."""
        marks = (DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN) if self.use_start_end else ("", "")
        turns = [{"from": "human", "value": f"{marks[0]}{DEFAULT_IMAGE_TOKEN}{marks[1]}\n{text}"}]
        if self.routing is not None:
            token, placement = self.routing
            turns = with_routing_token(turns, token=token, placement=placement)
        conversation = self.template.copy()
        conversation.append_message(conversation.roles[0], turns[0]["value"])
        conversation.append_message(conversation.roles[1], None)
        return conversation.get_prompt()


class Item(NamedTuple):
    """One question ready for the model."""

    position: int
    input_ids: Tensor  # (L,), image token as -200
    pixels: Tensor  # (3, H, W), or (tiles, 3, H, W)
    image_size: tuple[int, int]  # width, height of the file


class Batch(NamedTuple):
    """Questions asked together, padded on the left."""

    positions: list[int]
    input_ids: Tensor  # (B, L)
    attention_mask: Tensor  # (B, L) bool
    images: Tensor | list[Tensor]  # (B, 3, H, W) where the shapes agree
    image_sizes: list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class QuestionItems(Dataset[Item]):
    """Questions with their tokenized prompts; the image is read when the item is asked for."""

    questions: Sequence[Question]
    prompts: Sequence[Tensor]
    image_processor: Any
    model_config: Any

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, position: int) -> Item:
        question = self.questions[position]
        try:
            image = load_image(question.image)
            pixels = process_images([image], self.image_processor, self.model_config)[0]
        except (OSError, ValueError) as error:
            raise ValueError(f"question {question.id}: can't use image {question.image}: {error}") from error
        return Item(position, self.prompts[position], pixels, image.size)


def tokenize_prompts(questions: Sequence[Question], style: PromptStyle, tokenizer: Any) -> list[Tensor]:
    """Return every question's prompt as ids (L,)."""
    return [
        torch.as_tensor(tokenizer_image_token(style.prompt(question.text), tokenizer), dtype=torch.long)
        for question in questions
    ]


def batches_of_like_length(
    lengths: Sequence[int], positions: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Group positions so that each batch holds prompts of similar length, shortest first."""
    ordered = sorted(positions, key=lambda position: (lengths[position], position))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def collate(items: Sequence[Item], pad_token_id: int) -> Batch:
    """Pad prompts on the left, so that every answer starts in the same column."""
    longest = max(len(item.input_ids) for item in items)
    input_ids = torch.full((len(items), longest), pad_token_id, dtype=torch.long)  # (B, L)
    attention_mask = torch.zeros((len(items), longest), dtype=torch.bool)  # (B, L)
    for row, item in enumerate(items):
        start = longest - len(item.input_ids)
        input_ids[row, start:] = item.input_ids
        attention_mask[row, start:] = True
    pixels = [item.pixels for item in items]
    same_shape = len({tensor.shape for tensor in pixels}) == 1
    return Batch(
        positions=[item.position for item in items],
        input_ids=input_ids,
        attention_mask=attention_mask,
        images=torch.stack(pixels) if same_shape else pixels,  # (B, 3, H, W)
        image_sizes=[item.image_size for item in items],
    )


def load_batches(
    items: QuestionItems, batches: list[list[int]], *, pad_token_id: int, num_workers: int
) -> Iterator[Batch]:
    """Yield the batches in order; images are decoded in worker processes."""
    loader = DataLoader(
        items,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=lambda chosen: collate(chosen, pad_token_id),
    )
    try:
        yield from loader
    except ValueError as error:  # from a worker it has the worker's traceback in front of its message
        raise ValueError(str(error).rpartition("\nValueError: ")[2].strip()) from error
