"""Decoder, vision tower and projector under LLaVA's state-dict names, and images to visual tokens.

Shapes: K images, C crops, N tokens of a crop, V visual tokens of a batch, D model width.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from transformers import initialization

from llava.model.config import LlavaConfig
from llava.model.crop_shape import CropShape, crop_shape
from llava.model.merging import NO_GRID, Block, Merging
from llava.model.multimodal import VisualTokens
from llava.model.projector import build_projector
from llava.model.reduction import POOLING, PyramidLlamaModel, VisualProjector, build_selector
from llava.model.vision_tower import CLIPVisionTower


class LlavaLlamaModel(PyramidLlamaModel):
    """The decoder with everything that turns pixels into visual tokens."""

    config: LlavaConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, config: LlavaConfig) -> None:
        """Build the modules; the tower's weights come later.

        Raises:
            ValueError: the configuration is the DPN authors' own, whose routers would be lost.
        """
        if config.to_dict().get(POOLING) is not None:
            raise ValueError(
                f"the configuration has the DPN authors' `{POOLING}`, which only load_pretrained_model reads"
                f"; use it, or convert the checkpoint: python -m llava.model.convert --to dpn"
            )
        super().__init__(config)
        self.selector = build_selector(config.reduction)
        if config.mm_vision_tower is not None:
            self.vision_tower = CLIPVisionTower(config)
            self.mm_projector = build_projector(config)
            if "unpad" in config.mm_patch_merge_type:
                self.image_newline = nn.Parameter(torch.empty(config.hidden_size))
        self.post_init()

    def get_vision_tower(self) -> CLIPVisionTower:
        """Give the vision tower.

        Raises:
            ValueError: this is a text-only model.
        """
        if self.config.mm_vision_tower is None:
            raise ValueError("this model has no vision tower: its config.json names no mm_vision_tower")
        return self.vision_tower

    @property
    def crop_shape(self) -> CropShape:
        """What one crop becomes: the number of its visual tokens, and their grid."""
        return crop_shape(self.config, self.get_vision_tower().config)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pixels (C, 3, h, w) to visual tokens (C, N, D) by tower and projector.

        Raises:
            ValueError: a reduction leaves another number of every crop, which only `visual_tokens` gives.
        """
        if self.selector is not None:
            method = (self.config.reduction or {}).get("method")
            raise ValueError(
                f"encode_images gives equally many tokens of every crop, which --reduction {method} doesn't "
                f"leave; give images to forward() or generate()"
            )
        tower, projector = self.get_vision_tower(), self.mm_projector
        dtype = self._projected_dtype(pixels)
        if isinstance(projector, VisualProjector):
            levels = tower(pixels, projector.feature_layers)  # one (C, H*W, F) for each
            return projector([features.to(dtype) for features in levels])
        return projector(tower(pixels).to(dtype))

    def _projected_dtype(self, pixels: Tensor) -> torch.dtype:
        """Give the dtype that the projector reads: its weights', or that of the pixels where it has none."""
        weight = next(self.mm_projector.parameters(), None)
        return pixels.dtype if weight is None else weight.dtype

    def visual_tokens(
        self,
        images: Tensor | Sequence[Tensor],
        image_sizes: Sequence[Sequence[int]] | None,
        shown: np.ndarray,
    ) -> VisualTokens:
        """Encode images and merge the crops of each.

        All crops go through tower and projector in one pass. Images that no row shows (dummies of text-only
        rows, and those left over) are encoded only where all ranks must run the same modules: in training and
        under ZeRO-3.

        Args:
            images: pixels (K, 3, h, w), whose tokens stay as they are whatever the merge type (upstream), or
                (K, C, 3, h, w), or a list of (3, h, w) or (C, 3, h, w).
            image_sizes: width and height of every image before it was cut into tiles; mosaics need them.
            shown: (K,) whether a row shows the image.

        Raises:
            ValueError: tiles that can't be laid out, or a reduction that pools where the tokens form no grid.
        """
        is_stack = isinstance(images, Tensor) and images.ndim == 4  # upstream merges lists and crops only
        merging = self._merging("flat" if is_stack else self.config.mm_patch_merge_type)
        is_split = hasattr(self.embed_tokens.weight, "ds_id")  # by ZeRO-3, where ranks must keep step
        needs_all = self.training or is_split
        chosen = [index for index in range(len(images)) if shown[index] or needs_all]
        if not chosen:
            empty = self.embed_tokens.weight.new_zeros(0, self.config.hidden_size)
            return VisualTokens(empty, ((),) * len(images))
        crops = [images[index][None] if images[index].ndim == 3 else images[index] for index in chosen]
        counts = [len(image) for image in crops]
        if self.selector is not None:
            left, found = self._select(torch.cat(crops))
            spans = iter(found)
            taken = {index: tuple(islice(spans, count)) for index, count in zip(chosen, counts, strict=True)}
            return VisualTokens(left, tuple(taken.get(index, ()) for index in range(len(images))))
        encoded = self.encode_images(torch.cat(crops)).split(counts)  # K of (C, N, D)
        tokens: list[Tensor] = []
        blocks: list[tuple[Block, ...]] = [()] * len(images)
        for index, image in zip(chosen, encoded, strict=True):
            size = None if image_sizes is None else image_sizes[index]
            tokens.append(merging.merge(image, size))
            blocks[index] = merging.blocks(image, tokens[-1], size)
            pools = self.reducer is not None and bool(self.reducer.config.windows)
            if pools and NO_GRID in [block.grid for block in blocks[index]]:
                raise ValueError(
                    f"a reduction pools grids of visual tokens, which mm_patch_merge_type={merging.kind!r} "
                    f"doesn't leave of image {index} with {len(image)} crop(s); set mm_patch_merge_type to "
                    f"flat and image_aspect_ratio to pad"
                )
        return VisualTokens(torch.cat(tokens), tuple(blocks))

    def _select(self, pixels: Tensor) -> tuple[Tensor, list[Block]]:
        """Encode pixels (C, 3, h, w) to the tokens that a selector leaves, (V, D), and the crops' spans."""
        assert self.selector is not None
        tower = self.get_vision_tower()
        left = self.selector(tower.attended(pixels))
        tokens = self.mm_projector(left.features[None].to(self._projected_dtype(pixels)))[0]  # (V, D)
        return tokens, [Block(count, NO_GRID, tower.num_patches - count) for count in left.counts]

    def _merging(self, kind: str) -> Merging:
        tower, config, shape = self.get_vision_tower(), self.config, self.crop_shape
        return Merging(
            kind=kind,
            aspect_ratio=config.image_aspect_ratio,
            pinpoints=config.image_grid_pinpoints,
            image_side=tower.image_side,
            grid=shape.grid,
            features=shape.features,
            newline=getattr(self, "image_newline", None),
        )

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and hasattr(self, "image_newline"):
            initialization.normal_(self.image_newline, std=self.config.hidden_size**-0.5)
        projector = getattr(self, "mm_projector", None)  # the decoder is initialised before there is one
        if isinstance(projector, VisualProjector):
            projector.init_weights(module)
