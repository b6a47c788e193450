"""From questions to padded batches. Shapes: B questions, L prompt tokens, 3 x H x W pixels."""

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
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

    def prompt(self, text: str, *, has_image: bool = True) -> str:
        """Wrap a question: image token and newline before it, routing token after it, template around it.

        A question without an image gets neither of the two tokens.
        """
        marks = (DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN) if self.use_start_end else ("", "")
        mark = f"{marks[0]}{DEFAULT_IMAGE_TOKEN}{marks[1]}\n" if has_image else ""
        turns = [{"from": "human", "value": mark + text}]
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
    pixels: Tensor | None  # (3, H, W), or (tiles, 3, H, W); None for a question without an image
    image_size: tuple[int, int] | None  # width, height of the file


class Batch(NamedTuple):
    """Questions asked together, padded on the left: all of them with an image, or none."""

    positions: list[int]
    input_ids: Tensor  # (B, L)
    attention_mask: Tensor  # (B, L) bool
    images: Tensor | list[Tensor] | None  # (B, 3, H, W) where the shapes agree
    image_sizes: list[tuple[int, int]] | None


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
        if question.image is None:
            return Item(position, self.prompts[position], None, None)
        try:
            image = open_image(question.image)
            pixels = process_images([image], self.image_processor, self.model_config)[0]
        except (OSError, ValueError) as error:
            name = question.image if isinstance(question.image, Path) else "inside the question file"
            raise ValueError(f"question {question.id}: can't use image {name}: {error}") from error
        return Item(position, self.prompts[position], pixels, image.size)


def open_image(source: Path | bytes) -> Image.Image:
    """Open an image file, or the bytes of one, as RGB.

    Raises:
        ValueError: it can't be read as an image.
    """
    if isinstance(source, Path):
        return load_image(source)
    try:
        with Image.open(io.BytesIO(source)) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"{len(source)} bytes can't be read as an image ({error})") from error


def tokenize_prompts(questions: Sequence[Question], style: PromptStyle, tokenizer: Any) -> list[Tensor]:
    """Return every question's prompt as ids (L,).

    Raises:
        ValueError: a question whose text holds `<image>`, which would ask for another image.
    """
    for question in questions:
        if DEFAULT_IMAGE_TOKEN in question.text:
            raise ValueError(
                f"question {question.id}: its text holds {DEFAULT_IMAGE_TOKEN}, which stands for an image; "
                "the image token is put in front by itself: take it out of the question file"
            )
    prompts = (style.prompt(question.text, has_image=question.image is not None) for question in questions)
    return [torch.as_tensor(tokenizer_image_token(prompt, tokenizer), dtype=torch.long) for prompt in prompts]


def batches_of_like_length(
    lengths: Sequence[int], positions: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Group positions so that each batch holds prompts of similar length, shortest first."""
    ordered = sorted(positions, key=lambda position: (lengths[position], position))
    return [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]


def plan_batches(
    questions: Sequence[Question], lengths: Sequence[int], positions: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Group positions by prompt length; questions without an image come last, in batches of their own."""
    kinds = [
        [at for at in positions if (questions[at].image is None) == is_text] for is_text in (False, True)
    ]
    return [batch for kind in kinds for batch in batches_of_like_length(lengths, kind, batch_size)]


def batches_in_order(
    questions: Sequence[Question], positions: Sequence[int], batch_size: int
) -> list[list[int]]:
    """Group positions as they follow one another; no batch mixes questions with and without an image."""
    kinds = itertools.groupby(positions, key=lambda position: questions[position].image is None)
    runs = [list(run) for _, run in kinds]
    return [run[start : start + batch_size] for run in runs for start in range(0, len(run), batch_size)]


def collate(items: Sequence[Item], pad_token_id: int) -> Batch:
    """Pad prompts on the left, so that every answer starts in the same column."""
    longest = max(len(item.input_ids) for item in items)
    input_ids = torch.full((len(items), longest), pad_token_id, dtype=torch.long)  # (B, L)
    attention_mask = torch.zeros((len(items), longest), dtype=torch.bool)  # (B, L)
    for row, item in enumerate(items):
        start = longest - len(item.input_ids)
        input_ids[row, start:] = item.input_ids
        attention_mask[row, start:] = True
    pixels = [item.pixels for item in items if item.pixels is not None]
    assert len(pixels) in (0, len(items))  # plan_batches keeps the kinds apart
    same_shape = len({tensor.shape for tensor in pixels}) == 1
    return Batch(
        positions=[item.position for item in items],
        input_ids=input_ids,
        attention_mask=attention_mask,
        images=torch.stack(pixels) if same_shape else pixels or None,  # (B, 3, H, W)
        image_sizes=[item.image_size for item in items if item.image_size is not None] or None,
    )


def load_batches(
    items: QuestionItems, batches: list[list[int]], *, pad_token_id: int, num_workers: int
) -> Iterator[Batch]:
    """Yield the batches in order; images are decoded in worker processes.

    Raises:
        ValueError: an image can't be used, or a worker process ended; it names the question.
    """
    loader = DataLoader(
        items,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=lambda chosen: collate(chosen, pad_token_id),
    )
    loaded = iter(loader)
    for batch in batches:
        try:
            yield next(loaded)
        except ValueError as error:  # from a worker it has the worker's traceback in front of its message
            raise ValueError(str(error).rpartition("\nValueError: ")[2].strip()) from error
        except RuntimeError as error:  # torch's word for a worker that was killed
            names = ", ".join(str(items.questions[position].id) for position in batch)
            reason = str(error).splitlines()[-1]
            raise ValueError(
                f"question {names}: the process that decodes its image failed ({reason}); with "
                "--num_workers 0 images are decoded in the main process"
            ) from error
