"""Where everything lies in a packed batch: host-side arrays only, so that no plan needs a device read.

Samples are packed one after another without padding. Shapes: B samples, L padded length, N packed rows, M
rows after pooling, K largest window.

Token types (`mm_token_type_ids`, int (B, L)), the form in which a prompt's structure enters the decoder:
    0  TEXT
    1  ROUTER   a learned routing token
    2  LAST     the last prompt token of the first turn; 3 = ROUTER | LAST where it is a routing token, too
    4+ VISUAL   visual token of the sample's image number (type - 4) // 2; an odd offset marks the last prompt
                token, which is a visual one only where the answer follows the image directly
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from dpn.experts import Grid, GridPool

TEXT, ROUTER, LAST, VISUAL = 0, 1, 2, 4


@dataclass(frozen=True)
class VisualSpan:
    """The visual tokens of one image: packed rows start .. start + length - 1."""

    sample: int
    start: int
    length: int
    grid: Grid | None
    """Rows x columns, or None where the tokens form no full grid (cut by truncation): such a span is never
    pooled."""


@dataclass(frozen=True)
class Layout:
    """A packed batch of one stage."""

    padded_shape: tuple[int, int]
    """(B, L) of the caller's batch."""
    lengths: tuple[int, ...]
    """Tokens of every sample; N is their sum."""
    spans: tuple[VisualSpan, ...]
    origin: np.ndarray
    """(N,) index into the caller's flattened (B * L) tokens; for a pooled row that of its window's first
    token."""
    cells: np.ndarray
    """(tokens before any pooling,) index of every real token of the caller's flattened batch."""
    position: np.ndarray
    """(N,) position that the row's first token had among its sample's tokens before any pooling."""
    router_rows: np.ndarray
    """(R,) rows that hold routing tokens, and `router_samples` (R,) the samples they belong to."""
    router_samples: np.ndarray
    last_rows: np.ndarray
    """(B,) row of every sample's last prompt token of the first turn."""

    @classmethod
    def from_padded(cls, token_types: Tensor, attention_mask: Tensor | None, grids: Tensor) -> "Layout":
        """Read the structure of a padded batch: the only device read of the whole forward outside the DPEs.

        Args:
            token_types: (B, L) as described at the top of this file.
            attention_mask: (B, L), zero at padding; None means no padding.
            grids: (B, I, 2) rows and columns of every sample's images.

        Raises:
            ValueError: a sample without any token, or images whose tokens and grids don't go together.
        """
        types = token_types.cpu().numpy()
        mask = (
            np.ones(types.shape, bool)
            if attention_mask is None
            else attention_mask.cpu().numpy().astype(bool)
        )
        lengths = mask.sum(1)
        if (lengths == 0).any():
            raise ValueError(
                f"sample {int(np.argmin(lengths))} of the batch has no token: its attention mask is all zero"
            )
        origin = np.flatnonzero(mask)
        kinds = types.reshape(-1)[origin]  # (N,)
        samples = np.repeat(np.arange(len(lengths)), lengths)  # (N,)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        router_rows = np.flatnonzero((kinds == ROUTER) | (kinds == ROUTER | LAST))
        last_rows = starts[1:] - 1
        marked = np.flatnonzero(
            np.where(kinds >= VISUAL, (kinds - VISUAL) % 2 == 1, (kinds == LAST) | (kinds == ROUTER | LAST))
        )
        last_rows[samples[marked]] = marked
        return cls(
            padded_shape=(types.shape[0], types.shape[1]),
            lengths=tuple(int(length) for length in lengths),
            spans=_spans(kinds, samples, grids.cpu().numpy()),
            origin=origin,
            cells=origin,
            position=np.arange(len(origin)) - starts[samples],
            router_rows=router_rows,
            router_samples=samples[router_rows],
            last_rows=last_rows,
        )

    @property
    def starts(self) -> np.ndarray:
        """(B + 1,) packed row at which every sample starts, and N."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def samples(self) -> np.ndarray:
        """(N,) sample of every row."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def positions(self, mode: str) -> np.ndarray:
        """(N,) rotary positions.

        "renumber" counts 0..n-1 in every sample, "keep" uses the first token's original one.
        """
        if mode == "keep":
            return self.position
        return np.arange(len(self.origin)) - self.starts[self.samples]

    def visual_counts(self) -> np.ndarray:
        """(B,) visual tokens of every sample."""
        counts = np.zeros(len(self.lengths), np.int64)
        for span in self.spans:
            counts[span.sample] += span.length
        return counts

    def visual_rows(self) -> np.ndarray:
        """(N,) bool: the row is a visual token."""
        visual = np.zeros(len(self.origin), bool)
        for span in self.spans:
            visual[span.start : span.start + span.length] = True
        return visual

    def caller_cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Plan the caller's own padding.

        The row that each of its cells went into (B, L), 0 at padding, and where it is real.

        Where tokens were pooled away, that is the last row that starts at or before them; for the last token
        of an image it is the window that holds it.
        """
        real = np.zeros(math.prod(self.padded_shape), bool)
        real[self.cells] = True
        index = np.searchsorted(self.origin, np.arange(len(real)), side="right") - 1
        return np.where(real, index, 0).reshape(self.padded_shape), real.reshape(self.padded_shape)

    def padded_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Plan a left-padded batch.

        Row of every cell (B, max length), 0 at padding, and where it is real (bool).
        """
        width = max(self.lengths)
        column = np.arange(width) - (width - np.array(self.lengths)[:, None])  # (B, width)
        real = column >= 0
        return np.where(real, column + self.starts[:-1, None], 0), real

    def counts_after(self, expert: GridPool) -> np.ndarray:
        """(B,) visual tokens that every sample would keep if this expert were chosen."""
        counts = np.zeros(len(self.lengths), np.int64)
        for span in self.spans:
            counts[span.sample] += span.length if span.grid is None else math.prod(expert.grid(span.grid))
        return counts

    def pool(self, experts: Sequence[GridPool]) -> tuple[np.ndarray, "Layout"]:
        """Plan the pooling of every sample by its own expert.

        Returns:
            `source` (M, K): the packed rows that make up every new row, and the new layout. Text rows repeat
            their own index; rows of an image only ever meet rows of the same image.
        """
        width = math.lcm(*(math.prod(expert.kernel) for expert in experts))
        parts, spans, done, written = [], [], 0, 0
        lengths = np.array(self.lengths)
        for span in self.spans:
            windows, grid = _span_windows(span, experts[span.sample])
            parts += [_repeat(np.arange(done, span.start)[:, None], width), _repeat(windows, width)]
            written += span.start - done
            spans.append(VisualSpan(span.sample, written, len(windows), grid))
            lengths[span.sample] += len(windows) - span.length
            done, written = span.start + span.length, written + len(windows)
        parts.append(_repeat(np.arange(done, len(self.origin))[:, None], width))
        source = np.concatenate(parts)  # (M, K)
        first = source[:, 0]  # increasing, so a row is found again by bisection
        return source, replace(
            self,
            lengths=tuple(int(length) for length in lengths),
            spans=tuple(spans),
            origin=self.origin[first],
            position=self.position[first],
            router_rows=np.searchsorted(first, self.router_rows, side="right") - 1,
            last_rows=np.searchsorted(first, self.last_rows, side="right") - 1,
        )


def _span_windows(span: VisualSpan, expert: GridPool) -> tuple[np.ndarray, Grid | None]:
    """Windows of one span in packed rows (windows, h*w), and its grid afterwards."""
    if span.grid is None or expert.kernel == (1, 1):
        return np.arange(span.start, span.start + span.length)[:, None], span.grid
    return expert.windows(span.grid) + span.start, expert.grid(span.grid)


def _repeat(windows: np.ndarray, width: int) -> np.ndarray:
    """Repeat windows (m, k) to (m, width), every token equally often."""
    return np.tile(windows, (1, width // windows.shape[1]))


def _spans(kinds: np.ndarray, samples: np.ndarray, grids: np.ndarray) -> tuple[VisualSpan, ...]:
    """Find the runs of equal (sample, image) among packed token types, every one with its grid.

    Raises:
        ValueError: a grid without tokens, or tokens whose grid is unknown or too small.
    """
    rows = np.flatnonzero(kinds >= VISUAL)
    _require_tokens(kinds, samples, grids)
    if not len(rows):
        return ()
    keys = np.stack([samples[rows], (kinds[rows] - VISUAL) // 2])  # (2, visual)
    breaks = np.flatnonzero((np.diff(keys) != 0).any(0) | (np.diff(rows) != 1)) + 1
    found = []
    for run in np.split(rows, breaks):
        sample, image = int(samples[run[0]]), (int(kinds[run[0]]) - VISUAL) // 2
        height, width = (int(size) for size in grids[sample, image]) if image < grids.shape[1] else (0, 0)
        if len(run) > height * width:
            known = f"its grid is {height}x{width}" if height * width else "its grid is unknown"
            raise ValueError(
                f"image {image} of sample {sample} has {len(run)} visual tokens in a row, but {known}; give "
                f"rows and columns of every image as visual_grids (B, I, 2)"
            )
        grid = (height, width) if height * width == len(run) else None  # fewer: cut by truncation
        found.append(VisualSpan(sample, int(run[0]), len(run), grid))
    return tuple(found)


def _require_tokens(kinds: np.ndarray, samples: np.ndarray, grids: np.ndarray) -> None:
    """Refuse grids (B, I, 2) of images that no token of their sample belongs to: nothing could be pooled."""
    visual = kinds >= VISUAL
    seen = np.zeros((len(grids), max(grids.shape[1], int(kinds.max(initial=0)) // 2 + 1)), bool)
    seen[samples[visual], (kinds[visual] - VISUAL) // 2] = True
    missing = (grids.prod(-1) > 0) & ~seen[:, : grids.shape[1]]
    if missing.any():
        sample, image = (int(index) for index in np.argwhere(missing)[0])
        raise ValueError(
            f"sample {sample} has no visual token of its image {image}, whose grid is "
            f"{grids[sample, image, 0]}x{grids[sample, image, 1]}; mark the image's tokens in "
            f"mm_token_type_ids, or give the grid (0, 0) where there is no image"
        )
