"""Downsample: the tower reads a smaller image, which has fewer patches.

The plainest way to fewer visual tokens, and a control: what others leave out is never computed. CLIP's
position embeddings are interpolated to the smaller grid (bicubic, as Dosovitskiy et al. 2021, *An Image is
Worth 16x16 Words*, section 3.2, do it for larger ones). The image is resized from the original, not from
what the tower would have read. The tokens keep a grid.
"""

from dataclasses import dataclass
from typing import ClassVar

from dpn.method import FrontConfig


@dataclass(frozen=True, kw_only=True)
class DownsampleConfig(FrontConfig):
    """How small the image is."""

    method: ClassVar[str] = "downsample"
    trains: ClassVar[bool] = True

    side: int = 168
    """Pixels along a side; with CLIP-L/14-336, 168 leaves 12 x 12 of 24 x 24 tokens."""

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the field, the rule and the value."""
        if self.side < 1:
            raise ValueError(f"side must be 1 or more, got {self.side}")

    def image_side(self, own: int, patch: int) -> int:
        """Give `side`; ValueError where it is larger than the tower's own, or no whole number of patches."""
        if self.side > own or self.side % patch:
            raise ValueError(
                f"side={self.side} must be a multiple of the vision tower's patches of {patch} pixels and at "
                f"most its own {own} pixels"
            )
        return self.side
