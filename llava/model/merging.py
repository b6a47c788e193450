"""From the crops of one image to its visual tokens: `mm_patch_merge_type` flat, spatial and spatial_unpad.

The first of several crops is the whole image, the others are the tiles of its best resolution, row by row.

Shapes: C crops, N = H x W tokens of a crop, R x K tiles (down, across), D model width, V tokens of an image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llava.mm_utils import get_anyres_image_grid_shape

NO_GRID = (0, 0)
MERGE_TYPES = ("flat", "spatial", "spatial_unpad")


def check_merge_type(kind: object) -> None:
    """Refuse, with a ValueError, an `mm_patch_merge_type` that isn't known."""
    if kind not in MERGE_TYPES:
        raise ValueError(
            f"unknown mm_patch_merge_type {kind!r} in config.json; known: {', '.join(MERGE_TYPES)}"
        )


class Block(NamedTuple):
    """Visual tokens that lie together, in the order of the sequence: a crop, or a whole mosaic."""

    length: int
    grid: tuple[int, int]
    """Rows and columns, or NO_GRID where the tokens form none."""
    spared: int = 0
    """Tokens that there would be beside these in plain LLaVA, which makes one of every feature."""


@dataclass(frozen=True)
class Merging:
    """How the crops of an image become its tokens; made from config.json and the tower."""

    kind: str
    """flat, spatial or spatial_unpad."""
    aspect_ratio: str
    """Only `anyres` says how tiles lie in the image."""
    pinpoints: Any
    """Candidate resolutions of anyres: a list of (width, height), or the text of one."""
    image_side: int
    """Pixels of a tile."""
    grid: tuple[int, int]
    """H and W, or NO_GRID where the class token is kept."""
    newline: Tensor | None
    """(D,) token at the end of every row of an unpadded mosaic."""
    features: tuple[int, int] = NO_GRID
    """Rows and columns of a crop in plain LLaVA, where this one has fewer tokens."""

    def __post_init__(self) -> None:
        check_merge_type(self.kind)

    def blocks(
        self, crops: Tensor, tokens: Tensor, image_size: Sequence[int] | None = None
    ) -> tuple[Block, ...]:
        """Describe the tokens (V, D) that an image's crops (C, N, D) were merged to."""
        spared = self._unprojected(len(crops), image_size) - len(tokens) if self.features != NO_GRID else 0
        if self.kind == "flat" or (len(crops) == 1 and self.newline is None):
            return (Block(crops.shape[1], self.grid, spared // len(crops)),) * len(crops)
        return (Block(len(tokens), NO_GRID, spared),)

    def merge(self, crops: Tensor, image_size: Sequence[int] | None) -> Tensor:
        """Join the crops (C, N, D) of one image to its tokens (V, D) (spec: LLaVA-1.5's multi-crop merging).

        Args:
            crops: tokens of the whole image, then of its tiles.
            image_size: width and height of the image in pixels; only mosaics need it.

        Raises:
            ValueError: a mosaic whose tiles can't be placed: no image size, no grid, or another number of
                tiles than the image's best resolution has.
        """
        if self.kind == "flat":
            return crops.flatten(0, 1)
        if len(crops) == 1:
            ends = [] if self.newline is None else [self.newline[None].to(crops)]
            return torch.cat([crops[0], *ends])
        mosaic = self._mosaic(crops[1:], image_size)  # (D, R*H, K*W)
        if self.newline is not None:
            assert image_size is not None
            mosaic = unpad_image(mosaic, image_size)
            end = self.newline.to(mosaic)[:, None, None].expand(-1, mosaic.shape[1], 1)
            mosaic = torch.cat([mosaic, end], dim=2)
        return torch.cat([crops[0], mosaic.flatten(1).T])

    def _unprojected(self, num_crops: int, image_size: Sequence[int] | None) -> int:
        """Count the tokens that an image would have if every feature became one: a merge without numbers."""
        newline = None if self.newline is None else torch.empty(1, device="meta")
        plain = replace(self, grid=self.features, newline=newline)
        crops = torch.empty(num_crops, math.prod(self.features), 1, device="meta")
        return len(plain.merge(crops, image_size))

    def _mosaic(self, tiles: Tensor, image_size: Sequence[int] | None) -> Tensor:
        """Lay tiles (R*K, N, D) out as they lie in the image: (D, R*H, K*W)."""
        if self.aspect_ratio != "anyres" or image_size is None or self.grid == NO_GRID:
            raise ValueError(
                f"mm_patch_merge_type={self.kind!r} lays the tiles of an image out as anyres cut them, which "
                f"needs image_aspect_ratio=anyres (here {self.aspect_ratio!r}), image_sizes= with every "
                f"image's width and height (here {image_size}) and mm_vision_select_feature=patch; or give "
                f"one crop per image"
            )
        width, height = (int(side) for side in image_size)
        across, down = get_anyres_image_grid_shape((width, height), self.pinpoints, self.image_side)
        if across * down != len(tiles):
            raise ValueError(
                f"an image of {width}x{height} pixels has {down}x{across} tiles by image_grid_pinpoints, but "
                f"came with {len(tiles)}: image_sizes and images don't belong together"
            )
        (rows, columns), depth = self.grid, tiles.shape[-1]
        laid = tiles.reshape(down, across, rows, columns, depth).permute(4, 0, 2, 1, 3)  # (D, R, H, K, W)
        return laid.reshape(depth, down * rows, across * columns)


def unpad_image(mosaic: Tensor, original_size: Sequence[int]) -> Tensor:
    """Cut the letterbox off a mosaic (D, h, w); what is left covers an image of a width and a height.

    Rounds down where `resize_and_pad_image` rounds up, so that a line of the image may be lost: that is what
    anyres checkpoints were trained with.

    >>> unpad_image(torch.zeros(1, 8, 8), (30, 20)).shape  # 8 * 20 / 30 = 5.3: 1 row goes at both ends
    torch.Size([1, 6, 8])
    """
    (width, height), (rows, columns) = (int(side) for side in original_size), mosaic.shape[1:]
    if width / height > columns / rows:
        cut = (rows - int(height * (columns / width))) // 2
        return mosaic[:, cut : rows - cut]
    cut = (columns - int(width * (rows / height))) // 2
    return mosaic[:, :, cut : columns - cut]
