"""Where everything lies in a packed batch: host-side arrays, so that no plan needs a device read.

Only which visual tokens a ranking kept may be known to the device alone (`Layout.chosen_origin`).

Samples are packed one after another without padding. Shapes: B samples, L padded length, N packed rows, M
rows after pooling, K largest window. What the tokens of a prompt are is read by dpn/spans.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dpn.experts import Grid, GridPool, to_device
from dpn.spans import LAST, ROUTER, VISUAL, VisualSpan, find_spans


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
    chosen_origin: Tensor | None = None
    """(N,) as `origin`, on the device, where tokens were chosen there. The host then knows which image a
    visual row belongs to, but not which of its tokens it is: `origin` and `position` name stand-ins, which
    are right for text rows and for an image that kept all of its tokens."""

    @classmethod
    def from_padded(
        cls, token_types: Tensor, attention_mask: Tensor | None, grids: Tensor, *, needs_grids: bool = True
    ) -> "Layout":
        """Read the structure of a padded batch: the only device read of the whole forward outside the DPEs.

        Args:
            token_types: (B, L) as described in dpn/spans.py.
            attention_mask: (B, L), zero at padding; None means no padding.
            grids: (B, I, 2) rows and columns of every sample's images.
            needs_grids: whether an image whose grid is unknown (0, 0) is an error.

        Raises:
            ValueError: shapes that don't go together, a sample without any token, or images whose tokens
                and grids don't go together.
        """
        _check_shapes(token_types, attention_mask, grids)
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
            spans=find_spans(kinds, samples, grids.cpu().numpy(), needs_grids),
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
        """(N,) rotary positions, as far as the host knows them.

        "renumber" counts 0..n-1 in every sample, "keep" uses the first token's original one.
        """
        if mode == "keep":
            return self.position
        return np.arange(len(self.origin)) - self.starts[self.samples]

    def device_positions(self, mode: str, device: torch.device) -> Tensor:
        """(N,) rotary positions on the device, exact also where tokens were chosen there."""
        if mode != "keep" or self.chosen_origin is None:
            return to_device(self.positions(mode), device)
        samples = self.cells // self.padded_shape[1]
        first = np.searchsorted(samples, np.arange(self.padded_shape[0]))  # (B,)
        position = np.zeros(math.prod(self.padded_shape), np.int64)
        position[self.cells] = np.arange(len(self.cells)) - first[samples]
        return to_device(position, device)[self.chosen_origin.to(device)]

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

        Where tokens were pooled away or dropped, that is the last row that starts at or before them; for the
        last token of an image it is the window that holds it. A sample's first row stands for dropped tokens
        in front of it.
        """
        real = np.zeros(math.prod(self.padded_shape), bool)
        real[self.cells] = True
        index = np.searchsorted(self.origin, np.arange(len(real)), side="right") - 1
        index = np.maximum(index, np.repeat(self.starts[:-1], self.padded_shape[1]))
        return np.where(real, index, 0).reshape(self.padded_shape), real.reshape(self.padded_shape)

    def caller_rows(self, device: torch.device) -> Tensor:
        """`caller_cells`' rows (B, L) on the device, exact also where tokens were chosen there."""
        index, real = self.caller_cells()
        if self.chosen_origin is None:
            return to_device(index, device)
        cells = torch.arange(real.size, device=device).reshape(real.shape)
        rows = torch.searchsorted(self.chosen_origin.to(device), cells, right=True) - 1  # (B, L)
        rows = torch.maximum(rows, to_device(self.starts[:-1, None], device))
        return torch.where(to_device(real, device), rows, 0)

    def padded_index(self) -> tuple[np.ndarray, np.ndarray]:
        """Plan a left-padded batch.

        Row of every cell (B, max length), 0 at padding, and where it is real (bool).
        """
        width = max(self.lengths)
        column = np.arange(width) - (width - np.array(self.lengths)[:, None])  # (B, width)
        real = column >= 0
        return np.where(real, column + self.starts[:-1, None], 0), real

    def has_grid(self) -> np.ndarray:
        """(B,) bool: some image of the sample has a full grid."""
        found = np.zeros(len(self.lengths), bool)
        found[[span.sample for span in self.spans if span.grid is not None]] = True
        return found

    def require_grids(self, method: str) -> None:
        """Refuse, for a method that pools, images of which an earlier stage has dropped tokens.

        Raises:
            ValueError: naming the sample and the method.
        """
        for span in self.spans:
            if span.is_selected:
                raise ValueError(
                    f"{method} pools grids of visual tokens, but an image of sample {span.sample} has none "
                    f"left: an earlier stage dropped tokens of it. Pool first, or only drop"
                )

    def counts_after(self, expert: GridPool) -> np.ndarray:
        """(B,) visual tokens that every sample would keep if this expert were chosen."""
        counts = np.zeros(len(self.lengths), np.int64)
        for span in self.spans:
            counts[span.sample] += span.length if span.grid is None else math.prod(expert.grid(span.grid))
        return counts

    def loses_image(self, expert: GridPool) -> np.ndarray:
        """(B,) bool: this expert would leave nothing of one of the sample's images (edge=floor)."""
        lost = np.zeros(len(self.lengths), bool)
        if expert.edge == "ceil":  # which always keeps a window
            return lost
        for span in self.spans:
            lost[span.sample] |= span.grid is not None and math.prod(expert.grid(span.grid)) == 0
        return lost

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
            spans.append(replace(span, start=written, length=len(windows), grid=grid))
            lengths[span.sample] += len(windows) - span.length
            done, written = span.start + span.length, written + len(windows)
        parts.append(_repeat(np.arange(done, len(self.origin))[:, None], width))
        source = np.concatenate(parts)  # (M, K)
        first = source[:, 0]  # increasing, so a row is found again by bisection
        chosen = self.chosen_origin
        return source, replace(
            self,
            lengths=tuple(int(length) for length in lengths),
            spans=tuple(spans),
            origin=self.origin[first],
            position=self.position[first],
            router_rows=np.searchsorted(first, self.router_rows, side="right") - 1,
            last_rows=np.searchsorted(first, self.last_rows, side="right") - 1,
            chosen_origin=None if chosen is None else chosen[to_device(first, chosen.device)],
        )

    def keep(self, rows: np.ndarray, chosen: Tensor | None = None) -> "Layout":
        """Describe what is left where only some rows stay, which all keep their order.

        Args:
            rows: (M,) the rows that stay, increasing. All text rows and last prompt tokens are among them.
            chosen: (M,) on the device: the rows that really stay, where visual ones were chosen there; as
                many of every image as in `rows`.
        """
        spans = []
        for span in self.spans:
            start, end = np.searchsorted(rows, [span.start, span.start + span.length])
            if end - start == span.length:
                spans.append(replace(span, start=int(start)))
            elif end > start:
                spans.append(VisualSpan(span.sample, int(start), int(end - start), None, is_selected=True))
        origin = self.chosen_origin
        if chosen is not None:
            known = to_device(self.origin, chosen.device) if origin is None else origin.to(chosen.device)
            origin = known[chosen]
        elif origin is not None:
            origin = origin[to_device(rows, origin.device)]
        return replace(
            self,
            lengths=tuple(np.diff(np.searchsorted(rows, self.starts)).tolist()),
            spans=tuple(spans),
            origin=self.origin[rows],
            position=self.position[rows],
            router_rows=np.searchsorted(rows, self.router_rows),
            last_rows=np.searchsorted(rows, self.last_rows),
            chosen_origin=origin,
        )


def _check_shapes(token_types: Tensor, attention_mask: Tensor | None, grids: Tensor) -> None:
    if attention_mask is not None and attention_mask.shape != token_types.shape:
        raise ValueError(
            f"attention_mask must have the prompts' shape (B, L) = {tuple(token_types.shape)}, got "
            f"{tuple(attention_mask.shape)}"
        )
    if grids.ndim != 3 or grids.shape[0] != len(token_types) or grids.shape[2] != 2:
        raise ValueError(
            f"visual_grids must be (B, I, 2), rows and columns of the images of {len(token_types)} samples, "
            f"got {tuple(grids.shape)}"
        )


def _span_windows(span: VisualSpan, expert: GridPool) -> tuple[np.ndarray, Grid | None]:
    """Windows of one span in packed rows (windows, h*w), and its grid afterwards."""
    if span.grid is None or expert.kernel == (1, 1):
        return np.arange(span.start, span.start + span.length)[:, None], span.grid
    return expert.windows(span.grid) + span.start, expert.grid(span.grid)


def _repeat(windows: np.ndarray, width: int) -> np.ndarray:
    """Repeat windows (m, k) to (m, width), every token equally often."""
    return np.tile(windows, (1, width // windows.shape[1]))
