"""Keeping some visual tokens of every image: how many is known on the host, which is decided on the device.

Every image (every crop, where crops are spans of their own) keeps its own share, so that all lengths, text
rows and caches can be planned without asking the device. Tokens that stay keep their order.

Shapes: N packed rows before and M after, D model width.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from dpn.experts import to_device
from dpn.layout import Layout

_SLACK = 1e-6
"""1 - 0.9 is a little less than 0.1, and a tenth of 10 tokens is 1."""


def kept_of(length: int, share: float) -> int:
    """Count the tokens that stay of `length`: the share, rounded down, and never none.

    >>> kept_of(576, 0.5), kept_of(10, 1 - 0.9), kept_of(3, 0.1)
    (288, 1, 1)
    """
    return min(length, max(1, int(length * share + _SLACK)))


def keep_share(hidden: Tensor, layout: Layout, scores: Tensor, share: float) -> tuple[Tensor, Layout]:
    """Keep the share of every image's tokens that scores highest; of equal scores, the earlier token.

    Args:
        hidden: (N, D).
        layout: of the rows.
        scores: (N,); those of text rows don't matter.
        share: above 0; with 1 everything stays as it is.

    Returns:
        (M, D) and its layout.
    """
    counts = [kept_of(span.length, share) for span in layout.spans]
    if all(count == span.length for count, span in zip(counts, layout.spans, strict=True)):
        return hidden, layout
    groups, slots = compete(layout, counts)
    rows = best_rows(scores, groups, slots).to(hidden.device)
    return hidden[rows], layout.keep(slots, rows)


def compete(layout: Layout, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Say which rows compete, and where those that stay will be found.

    Visual rows compete within their image. A visual row that is the last prompt token stays as text does.

    Args:
        layout: of the rows.
        counts: tokens that stay of every span.

    Returns:
        group of every row (N,), increasing; and the slots (M,) that stay when rows are sorted by group and,
        within it, by falling score. With equal scores the slots are the rows that stay.

    Raises:
        ValueError: a last prompt token in the middle of an image, whose place nobody would know afterwards.
    """
    starts, kept, done = [], [], 0

    def add(start: int, end: int, stay: int) -> None:
        if end > start:
            starts.append(start)
            kept.append(np.arange(start, start + stay))

    for span, count in zip(layout.spans, counts, strict=True):
        end, last = span.start + span.length, int(layout.last_rows[span.sample])
        if span.start <= last < end - 1:
            raise ValueError(
                f"the last prompt token of sample {span.sample} lies inside an image; mark the image's last "
                f"token, or a text token (dpn/spans.py, LAST)"
            )
        is_last = int(last == end - 1)
        add(done, span.start, span.start - done)
        add(span.start, end - is_last, max(0, count - is_last))
        done = end - is_last
    add(done, len(layout.origin), len(layout.origin) - done)
    sizes = np.diff([*starts, len(layout.origin)])
    return np.repeat(np.arange(len(starts)), sizes), np.concatenate(kept)


def best_rows(scores: Tensor, groups: np.ndarray, slots: np.ndarray) -> Tensor:
    """Give the rows (M,) that fill the slots (M,) when rows are sorted by group and by falling score (N,).

    >>> best_rows(torch.tensor([9.0, 1.0, 3.0, 2.0]), np.array([0, 1, 1, 1]), np.array([0, 1, 2])).tolist()
    [0, 2, 3]
    """
    by_score = scores.argsort(descending=True, stable=True)
    order = by_score[to_device(groups, scores.device)[by_score].argsort(stable=True)]  # (N,)
    return order[to_device(slots, scores.device)].sort().values


def keep_rows(hidden: Tensor, layout: Layout, kept: Sequence[np.ndarray]) -> tuple[Tensor, Layout]:
    """Keep tokens that the host knows, beside text rows and last prompt tokens.

    Args:
        hidden: (N, D).
        layout: of the rows.
        kept: numbers of the tokens that stay, within every span.

    Returns:
        (M, D) and its layout; the same objects where everything stays.
    """
    stays = ~layout.visual_rows()
    stays[layout.last_rows] = True
    for span, tokens in zip(layout.spans, kept, strict=True):
        stays[span.start + tokens] = True
    if stays.all():
        return hidden, layout
    rows = np.flatnonzero(stays)
    return hidden[to_device(rows, hidden.device)], layout.keep(rows)
