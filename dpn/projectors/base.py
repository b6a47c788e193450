"""What a visual projector is: the tower's features in, fewer visual tokens out, in a shape known beforehand.

Shapes: B crops, H x W feature grid, N = H * W features, F feature width, h x w token grid, T tokens, D model
width.

ZeRO-3 and DDP need every rank to run the same modules in the same order: a projector runs all its modules on
every batch, whatever is in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from dpn.experts import Grid


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """What a projector has to know of the vision tower in front of it."""

    width: int
    """F."""
    grid: Grid
    """H and W, the rows and columns of its patches."""
    num_layers: int
    """Hidden states count from 0, the embedding, to this, the output of the last layer."""
    layer: int
    """The hidden state that LLaVA takes (mm_vision_select_layer), counted from 0."""


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """What a user can decide about a projector; its options are its fields."""

    def grid(self, in_grid: Grid) -> Grid | None:
        """Give the rows and columns of the tokens, None where they form no grid.

        Raises:
            ValueError: the features' grid (H, W) is one that this projector can't take.
        """
        raise NotImplementedError

    def num_tokens(self, in_grid: Grid) -> int:
        """Count T, the tokens of one crop, for the features' grid (H, W); ValueError as `grid` has it."""
        grid = self.grid(in_grid)
        assert grid is not None  # a projector without a grid counts for itself
        return math.prod(grid)

    def feature_layers(self, tower: TowerShape) -> tuple[int, ...]:
        """Name the hidden states that the projector reads, counted from 0."""
        return (tower.layer,)


@dataclass(frozen=True, kw_only=True)
class ScaledConfig(ProjectorConfig):
    """Options of a projector that makes one token of every scale x scale features."""

    scale: int = 2
    """Features along each side of a token's square; 2 makes 144 tokens of CLIP-L/14-336's 576 features."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise ValueError(f"scale must be 1 or more, got {self.scale}")

    def grid(self, in_grid: Grid) -> Grid:
        """Give (H / scale, W / scale); ValueError where scale doesn't divide both."""
        rows, columns = in_grid
        if rows % self.scale or columns % self.scale:
            raise ValueError(
                f"scale={self.scale} does not divide the {rows}x{columns} grid of the vision tower's "
                f"features; choose one that divides rows and columns"
            )
        return rows // self.scale, columns // self.scale


class VisualProjector(nn.Module):
    """A projector with a shape of its own; a subclass is one published design.

    It is built for one tower and one decoder, and its parameters become LLaVA's `model.mm_projector.*`.
    """

    config_class: ClassVar[type[ProjectorConfig]]
    """Its options."""

    def __init__(self, config: ProjectorConfig, tower: TowerShape, width: int) -> None:
        """Take the options, the tower's shape and D, the decoder's width.

        Raises:
            ValueError: the tower's grid or the decoder's width doesn't suit the options.
        """
        super().__init__()
        self.config = config
        self.tower = tower
        self.width = width
        self.num_tokens = config.num_tokens(tower.grid)

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """The hidden states of the tower that `forward` takes, in this order."""
        return self.config.feature_layers(self.tower)

    def grid(self, in_grid: Grid) -> Grid | None:
        """Give the rows and columns of the tokens, None where they form no grid."""
        return self.config.grid(in_grid)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Project features, one (B, N, F) for each of `feature_layers`, to visual tokens (B, T, D)."""
        raise NotImplementedError

    def init_weights(self, module: nn.Module) -> None:
        """Initialise parameters that a module inside holds itself, beside those of torch's own layers.

        The model's `_init_weights` calls it for every module. Without it such a parameter would be left as
        whatever the memory held, since models are loaded into modules without storage.
        """


class GridProjector(VisualProjector):
    """A projector whose tokens form a grid: every token stands for one scale x scale square of features."""

    config: ScaledConfig

    def __init__(self, config: ScaledConfig, tower: TowerShape, width: int) -> None:
        super().__init__(config, tower, width)
        self.token_grid = config.grid(tower.grid)
        """h and w."""
