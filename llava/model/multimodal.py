"""Splicing visual tokens into the prompt.

Ids with -200 sentinels to embeddings, mask, positions, labels, structure.

The plan is made on the host from one read of the ids; the embeddings are then gathered in one step, so that
the projector stays in the graph of every batch, also of one without an image.

Shapes: B samples, S ids with sentinels, T merged length, C crops, N visual tokens of a crop, I spans, D model
width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers.utils import logging

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
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
    """(B, T) on the host: what every position is (dpn/layout.py)."""
    visual_grids: Tensor
    """(B, I, 2) on the host: rows and columns of every visual span."""
    labels: np.ndarray | None
    """(B, T) on the host, -100 at visual tokens and padding."""

    @property
    def lengths(self) -> list[int]:
        """Merged tokens of every row."""
        return (self.mm_token_type_ids != PADDING).sum(1).tolist()

    @property
    def visual_counts(self) -> list[int]:
        """Visual tokens of every row."""
        return (self.mm_token_type_ids >= VISUAL).sum(1).tolist()


@dataclass(frozen=True)
class VisualTokens:
    """The projector's output for a whole batch, and whose crops are whose."""

    tokens: Tensor
    """(C, N, D) crops of all images in order."""
    crops: tuple[int, ...]
    """Crops of every image."""
    grid: tuple[int, int]
    """Rows and columns of a crop's tokens; (0, 0) where they form none."""


def splice_images(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    visual: VisualTokens,
    embed: nn.Module,
    *,
    router_id: int | None = None,
    max_length: int | None = None,
    padding_side: str = "right",
) -> Spliced:
    """Replace every sentinel by its image's visual tokens (spec: LLaVA-1.5's merge).

    Masked positions are dropped first; rows take images in order, a row without a sentinel takes one that is
    not used (its dummy); rows are cut at max_length from the right and padded to the longest.

    Raises:
        ValueError: fewer images than the rows take, or an id that the vocabulary doesn't have.
    """
    ids = input_ids.cpu().numpy()
    kept = np.ones(ids.shape, bool) if attention_mask is None else attention_mask.cpu().numpy().astype(bool)
    truth = np.full(ids.shape, IGNORE_INDEX) if labels is None else labels.cpu().numpy()
    rows = _plan(ids, kept, truth, visual, router_id)
    if max_length is not None:
        rows = [_cut(row, max_length, is_training=labels is not None) for row in rows]
    length = max(len(row.source) for row in rows)
    source = np.full((len(rows), length), PADDING)
    types, targets = source.copy(), np.full((len(rows), length), IGNORE_INDEX)
    for index, row in enumerate(rows):
        place = (
            slice(0, len(row.source)) if padding_side == "right" else slice(length - len(row.source), length)
        )
        source[index, place], types[index, place], targets[index, place] = row.source, row.types, row.labels
    device = input_ids.device
    text = np.flatnonzero((kept & (ids != IMAGE_TOKEN_INDEX)).reshape(-1))
    embedded = embed(input_ids.reshape(-1)[torch.from_numpy(text).to(device)])  # (text tokens, D)
    flat = visual.tokens.flatten(0, 1).to(embedded.dtype)  # (C * N, D)
    pool = torch.cat([embedded, flat, embedded.new_zeros(1, embedded.shape[-1])])  # padding is row -1
    mask = source != PADDING
    return Spliced(
        inputs_embeds=pool[torch.from_numpy(source % len(pool)).to(device)],  # (B, T, D)
        attention_mask=torch.from_numpy(mask).to(device),
        position_ids=torch.from_numpy(np.where(mask, mask.cumsum(1) - 1, 0)).to(device),
        mm_token_type_ids=torch.from_numpy(types),
        visual_grids=_grids(rows, visual.grid),
        labels=None if labels is None else targets,
    )


@dataclass
class _Row:
    """One row of the plan: `source` indexes [text embeddings; visual tokens]."""

    source: np.ndarray
    types: np.ndarray
    labels: np.ndarray
    spans: int


def _plan(
    ids: np.ndarray, kept: np.ndarray, truth: np.ndarray, visual: VisualTokens, router_id: int | None
) -> list[_Row]:
    """Walk the rows with one running image counter."""
    per_crop = visual.tokens.shape[1]
    first_crop = np.concatenate([[0], np.cumsum(visual.crops)])
    if not kept.any(1).all():
        raise ValueError(
            f"row {int(np.argmin(kept.any(1)))} of the batch is empty: its attention mask is all zero"
        )
    num_text = int((kept & (ids != IMAGE_TOKEN_INDEX)).sum())
    rows, image, text = [], 0, 0
    for index in range(len(ids)):
        row_ids, row_truth = ids[index][kept[index]], truth[index][kept[index]]
        places = np.flatnonzero(row_ids == IMAGE_TOKEN_INDEX)
        needed = max(1, len(places))
        if image + needed > len(visual.crops):
            raise ValueError(
                f"row {index} of the batch needs {needed} image(s) (a row without <image> still takes one "
                f"dummy), but "
                f"only {len(visual.crops) - image} of the {len(visual.crops)} images given are left"
            )
        source, types, labels, span = [], [], [], 0
        for number, chunk in enumerate(np.split(np.arange(len(row_ids)), places)):
            if number:
                crops = np.arange(first_crop[image + number - 1], first_crop[image + number])
                tokens = (crops[:, None] * per_crop + np.arange(per_crop)).reshape(-1)
                source.append(num_text + tokens)
                types.append(VISUAL + 2 * (span + np.repeat(np.arange(len(crops)), per_crop)))
                labels.append(np.full(len(tokens), IGNORE_INDEX))
                span, chunk = span + len(crops), chunk[1:]  # noqa: PLW2901 - the sentinel itself
            source.append(text + np.arange(len(chunk)))
            types.append(
                np.where(row_ids[chunk] == router_id, ROUTER, TEXT) if router_id else np.zeros(len(chunk))
            )
            labels.append(row_truth[chunk])
            text += len(chunk)
        image += needed
        joined = [np.concatenate(part).astype(np.int64) for part in (source, types, labels)]
        rows.append(_Row(joined[0], _mark_last(joined[1], joined[2]), joined[2], span))
    return rows


def _mark_last(types: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mark the token in front of the first supervised one, or the last token where nothing is supervised."""
    supervised = np.flatnonzero(labels != IGNORE_INDEX)
    last = max(int(supervised[0]) - 1, 0) if len(supervised) else len(types) - 1
    marked = types.copy()
    marked[last] = types[last] + 1 if types[last] >= VISUAL else LAST
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
    types = np.where(row.types == LAST, TEXT, row.types)[:max_length]
    visual = types >= VISUAL
    types[visual] -= (types[visual] - VISUAL) % 2
    return _Row(source, _mark_last(types, labels), labels, row.spans)


def _grids(rows: Sequence[_Row], grid: tuple[int, int]) -> Tensor:
    """(B, I, 2): every span is one crop of the same grid."""
    most = max(row.spans for row in rows)
    grids = torch.zeros(len(rows), most, 2, dtype=torch.long)
    for index, row in enumerate(rows):
        grids[index, : row.spans] = torch.tensor(grid)
    return grids
