"""The table of projectors, and one of them from its name and options."""

from dpn.projectors.average_pool import AveragePool
from dpn.projectors.base import ProjectorConfig, TowerShape, VisualProjector
from dpn.projectors.c_abstractor import CAbstractor
from dpn.projectors.ldp_v2 import LdpV2
from dpn.projectors.pixel_shuffle import PixelShuffle
from dpn.projectors.resampler import Resampler
from dpn.projectors.token_packer import TokenPacker

PROJECTORS: dict[str, type[VisualProjector]] = {
    "average_pool": AveragePool,
    "pixel_shuffle": PixelShuffle,
    "token_packer": TokenPacker,
    "ldp_v2": LdpV2,
    "resampler": Resampler,
    "c_abstractor": CAbstractor,
}
"""By the name that `mm_projector_type` has for them."""


def build_visual_projector(
    name: str, config: ProjectorConfig, tower: TowerShape, width: int
) -> VisualProjector:
    """Build the projector `name` for a tower and a decoder of width D.

    Raises:
        ValueError: the tower's grid or the decoder's width doesn't suit the options.
    """
    return PROJECTORS[name](config, tower, width)
