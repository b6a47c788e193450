"""The form in which a prompt's structure enters the decoder, and the images found in it.

Token types (`mm_token_type_ids`, int (B, L)):
    0  TEXT
    1  ROUTER   a learned routing token
    2  LAST     the last prompt token of the first turn; 3 = ROUTER | LAST where it is a routing token, too
    4+ VISUAL   visual token of the sample's image number (type - 4) // 2; an odd offset marks the last prompt
                token, which is a visual one only where the answer follows the image directly

Shapes: B samples, L padded length, N packed rows, I images of a sample.
"""

from dataclasses import dataclass

import numpy as np

from dpn.experts import Grid

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
    is_selected: bool = False
    """Whether some of the image's tokens were dropped in an earlier stage."""


def find_spans(
    kinds: np.ndarray, samples: np.ndarray, grids: np.ndarray, needs_grids: bool
) -> tuple[VisualSpan, ...]:
    """Find the runs of equal (sample, image) among packed token types, every one with its grid.

    Raises:
        ValueError: a grid without tokens, or tokens whose grid is too small, or unknown where it is needed.
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
        if len(run) > height * width and (needs_grids or height * width):
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
