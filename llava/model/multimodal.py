"""Splicing visual tokens into the prompt.

Ids with -200 sentinels to embeddings, mask, positions, labels, structure.

The plan is made on the host from one read of the ids; the embeddings are then gathered in one step, so that
the projector stays in the graph of every batch, also of one without an image.

Shapes: B samples, S ids with sentinels, T merged length, K images, V visual tokens of the batch, I spans, D
model width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import logging

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.merging import Block
from llava.model.reduction import LAST, ROUTER, TEXT, VISUAL

logger = logging.get_logger(__name__)

PADDING = -1


@dataclass(frozen=True)
class Spliced:
    """A merged batch, ready for the decoder."""

    inputs_embeds: Tensor
    """(B, T, D), zero at padding."""
    attention_mask: Tensor
    """(B, T) bool."""
    position_ids: Tensor
    """(B, T), 0 .. length - 1 in every row, zero at padding."""
    mm_token_type_ids: Tensor
    """(B, T) on the host: what every position is (dpn/spans.py)."""
    visual_grids: Tensor
    """(B, I, 2) on the host: rows and columns of every visual span, (0, 0) where it has none."""
    labels: np.ndarray | None
    """(B, T) on the host, -100 at visual tokens and padding."""
    spared: list[int]
    """Visual tokens that every row would have beside its own if every feature had become one."""

    @property
    def lengths(self) -> list[int]:
        """Merged tokens of every row."""
        return (self.mm_token_type_ids != PADDING).sum(1).tolist()

    @property
    def visual_counts(self) -> list[int]:
        """Visual tokens of every row."""
        return (self.mm_token_type_ids >= VISUAL).sum(1).tolist()

    @property
    def grids(self) -> list[tuple[tuple[int, int], ...]]:
        """Rows and columns of every row's visual spans that form grids."""
        listed = self.visual_grids.tolist()
        return [tuple((rows, columns) for rows, columns in spans if rows * columns) for spans in listed]


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens of a whole batch, and whose is what."""

    tokens: Tensor
    """(V, D), image after image."""
    images: tuple[tuple[Block, ...], ...]
    """The spans of every image, () for one that no row shows and that wasn't encoded."""


class Prompts(NamedTuple):
    """A batch of prompts on the host. All (B, S)."""

    ids: np.ndarray
    kept: np.ndarray
    """What the attention mask leaves."""
    labels: np.ndarray
    has_labels: bool

    @classmethod
    def read(cls, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None) -> "Prompts":
        """Bring ids, mask and labels (B, S) to the host: the only device read of a merge.

        Raises:
            ValueError: a row of which the mask leaves nothing.
        """
        ids = input_ids.cpu().numpy()
        kept = (
            np.ones(ids.shape, bool) if attention_mask is None else attention_mask.cpu().numpy().astype(bool)
        )
        if not kept.any(1).all():
            raise ValueError(
                f"row {int(np.argmin(kept.any(1)))} of the batch is empty: its attention mask is all zero"
            )
        truth = np.full(ids.shape, IGNORE_INDEX) if labels is None else labels.cpu().numpy()
        return cls(ids, kept, truth, labels is not None)

    def first_images(self, given: int) -> np.ndarray:
        """Give the number of the first image of every row (B,): rows take images in order.

        A row without a sentinel takes one that isn't shown (its dummy); images left over are ignored.

        Raises:
            ValueError: fewer images than the rows take.
        """
        takes = np.maximum(1, self.sentinels)
        ends = np.cumsum(takes)
        if ends[-1] > given:
            row = int(np.argmax(ends > given))
            raise ValueError(
                f"row {row} of the batch needs {takes[row]} image(s) (a row without <image> still takes one "
                f"dummy), but only {given - (ends - takes)[row]} of the {given} images given are left"
            )
        return ends - takes

    def shown_images(self, given: int) -> np.ndarray:
        """Tell which of the images a row shows (given,): neither dummies nor those left over."""
        shown = np.zeros(given, bool)
        for first, count in zip(self.first_images(given), self.sentinels, strict=True):
            shown[first : first + count] = True
        return shown

    @property
    def sentinels(self) -> np.ndarray:
        """(B,) images that every row shows."""
        return ((self.ids == IMAGE_TOKEN_INDEX) & self.kept).sum(1)


def splice_images(
    prompts: Prompts,
    input_ids: Tensor,
    visual: VisualTokens,
    embed: nn.Module,
    *,
    router_id: int | None = None,
    max_length: int | None = None,
    padding_side: str = "right",
) -> Spliced:
    """Replace every sentinel by its image's visual tokens (spec: LLaVA-1.5's merge).

    Masked positions are dropped first; rows take images in order; rows are cut at max_length from the right
    and padded to the longest.

    Args:
        prompts: the ids, the mask and the labels on the host.
        input_ids: the same ids (B, S) where the embeddings are.
        visual: tokens of the images in order.
        embed: ids to embeddings.
        router_id: id of the routing token.
        max_length: tokens of a merged row, None for any number.
        padding_side: left or right.

    Raises:
        ValueError: fewer images than the rows take.
    """
    rows = _plan(prompts, visual, router_id)
    if max_length is not None:
        rows = [_cut(row, max_length, is_training=prompts.has_labels) for row in rows]
    length = max(len(row.source) for row in rows)
    source = np.full((len(rows), length), PADDING)
    types, targets = source.copy(), np.full((len(rows), length), IGNORE_INDEX)
    for index, row in enumerate(rows):
        end = len(row.source) if padding_side == "right" else length
        place = slice(end - len(row.source), end)
        source[index, place], types[index, place], targets[index, place] = row.source, row.types, row.labels
    device = input_ids.device
    text = np.flatnonzero((prompts.kept & (prompts.ids != IMAGE_TOKEN_INDEX)).reshape(-1))
    embedded = embed(input_ids.reshape(-1)[torch.from_numpy(text).to(device)])  # (text tokens, D)
    padding = embedded.new_zeros(1, embedded.shape[-1])  # row -1
    pool = torch.cat([embedded, visual.tokens.to(embedded), padding])
    mask = source != PADDING
    return Spliced(
        inputs_embeds=pool[torch.from_numpy(source % len(pool)).to(device)],  # (B, T, D)
        attention_mask=torch.from_numpy(mask).to(device),
        position_ids=torch.from_numpy(np.where(mask, mask.cumsum(1) - 1, 0)).to(device),
        mm_token_type_ids=torch.from_numpy(types),
        visual_grids=_grids(rows),
        labels=targets if prompts.has_labels else None,
        spared=[sum(block.spared for block in row.spans) for row in rows],
    )


@dataclass
class _Row:
    """One row of the plan: `source` indexes [text embeddings; visual tokens]."""

    source: np.ndarray
    types: np.ndarray
    labels: np.ndarray
    spans: list[Block]


def _plan(prompts: Prompts, visual: VisualTokens, router_id: int | None) -> list[_Row]:
    """Walk the rows: text chunk, image, text chunk, ..."""
    first_images = prompts.first_images(len(visual.images))
    starts = np.concatenate([[0], np.cumsum([sum(block.length for block in i) for i in visual.images])])
    text = 0
    visual_start = int((prompts.kept & (prompts.ids != IMAGE_TOKEN_INDEX)).sum())
    rows = []
    for index, kept in enumerate(prompts.kept):
        row_ids, row_truth = prompts.ids[index][kept], prompts.labels[index][kept]
        source, types, labels, spans = [], [], [], []
        for number, chunk in enumerate(np.split(np.arange(len(row_ids)), _sentinels(row_ids))):
            if number:
                image = first_images[index] + number - 1
                source.append(visual_start + np.arange(int(starts[image]), int(starts[image + 1])))
                for block in visual.images[image]:
                    types.append(np.full(block.length, VISUAL + 2 * len(spans)))
                    spans.append(block)
                labels.append(np.full(len(source[-1]), IGNORE_INDEX))
                chunk = chunk[1:]  # noqa: PLW2901 - the sentinel itself
            source.append(text + np.arange(len(chunk)))
            is_router = np.zeros(len(chunk), bool) if router_id is None else row_ids[chunk] == router_id
            types.append(np.where(is_router, ROUTER, TEXT))
            labels.append(row_truth[chunk])
            text += len(chunk)
        joined = [np.concatenate(part).astype(np.int64) for part in (source, types, labels)]
        rows.append(_Row(joined[0], _mark_last(joined[1], joined[2]), joined[2], spans))
    return rows


def _sentinels(ids: np.ndarray) -> np.ndarray:
    """Where the sentinels of a row are."""
    return np.flatnonzero(ids == IMAGE_TOKEN_INDEX)


def _mark_last(types: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mark the token in front of the first supervised one, or the last token where nothing is supervised."""
    supervised = np.flatnonzero(labels != IGNORE_INDEX)
    last = max(int(supervised[0]) - 1, 0) if len(supervised) else len(types) - 1
    marked = types.copy()
    marked[last] = types[last] + 1 if types[last] >= VISUAL else types[last] | LAST
    return marked


def _cut(row: _Row, max_length: int, *, is_training: bool) -> _Row:
    """Cut a row from the right, as upstream does.

    In generation this loses the end of the prompt, so say it.
    """
    if len(row.source) <= max_length:
        return row
    if not is_training:
        logger.warning(
            "a prompt of %d tokens is cut to tokenizer_model_max_length=%d, which loses its end; shorten "
            "the prompt or "
            "raise the field in config.json",
            len(row.source),
            max_length,
        )
    source, labels = row.source[:max_length], row.labels[:max_length]
    types = np.where(row.types < VISUAL, row.types & ~LAST, row.types)[:max_length]
    visual = types >= VISUAL
    types[visual] -= (types[visual] - VISUAL) % 2
    spans = row.spans[: len(np.unique(types[visual]))]  # an image that was cut away leaves no grid behind
    return _Row(source, _mark_last(types, labels), labels, spans)


def _grids(rows: Sequence[_Row]) -> Tensor:
    """(B, I, 2): the grids of every row's spans."""
    grids = torch.zeros(len(rows), max(len(row.spans) for row in rows), 2, dtype=torch.long)
    for index, row in enumerate(rows):
        for number, block in enumerate(row.spans):
            grids[index, number] = torch.tensor(block.grid)
    return grids
