"""The frozen CLIP tower: pixels to visual features. Shapes: N images, H x W patch grid, F feature width."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from llava.model.config import LlavaConfig

FEATURES = ("patch", "cls_patch")


class CLIPVisionTower(nn.Module):
    """LLaVA's vision tower.

    Weights come from `mm_vision_tower`, or from the checkpoint where it was unfrozen.

    Until `load_model` is called the tower knows its configuration only and holds no parameter: a decoder's
    `from_pretrained` must not load another model inside its constructor.
    """

    vision_tower: CLIPVisionModel | None
    image_processor: Any

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        assert config.mm_vision_tower is not None
        if config.mm_vision_select_feature not in FEATURES:
            raise ValueError(
                f"mm_vision_select_feature must be one of {', '.join(FEATURES)}, got "
                f"{config.mm_vision_select_feature!r}"
            )
        self.name = config.mm_vision_tower
        self.select_layer = config.mm_vision_select_layer
        self.select_feature = config.mm_vision_select_feature
        self.vision_tower = None
        self.image_processor = None
        if config.unfreeze_mm_vision_tower:
            self.vision_tower = CLIPVisionModel(vision_config(self.name))

    def load_model(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        """Load image processor and, unless the checkpoint brought them, weights; freeze everything.

        Raises:
            ValueError: the directory doesn't exist or holds no CLIP vision model.
        """
        _check(self.name)
        self.image_processor = CLIPImageProcessorPil.from_pretrained(self.name)
        if self.vision_tower is None:
            self.vision_tower = CLIPVisionModel.from_pretrained(self.name, dtype=dtype or torch.float32)
        self.vision_tower.requires_grad_(False)
        self.vision_tower.to(device, dtype)  # pyright: ignore[reportCallIssue, reportArgumentType] - its stub is wrong

    @property
    def is_loaded(self) -> bool:
        """Whether the image processor and the weights are there."""
        return self.vision_tower is not None and self.image_processor is not None

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Encode pixels (N, 3, h, w) to features (N, H*W, F) of the same dtype.

        `cls_patch` adds one row in front.

        Raises:
            ValueError: the tower isn't loaded, or the pixels have another size than it takes.
        """
        tower = self._tower()
        size = self.config.image_size
        if pixels.shape[-2:] != (size, size):
            raise ValueError(
                f"{self.name} takes {size}x{size} pixels, got images of shape {tuple(pixels.shape)}"
            )
        states = tower(pixels.to(tower.device, tower.dtype), output_hidden_states=True).hidden_states
        features = states[self.select_layer]  # (N, 1 + H*W, F)
        return (features[:, 1:] if self.select_feature == "patch" else features).to(pixels.dtype)

    @property
    def config(self) -> CLIPVisionConfig:
        """Sizes of the tower, also before its weights are loaded."""
        return vision_config(self.name) if self.vision_tower is None else self.vision_tower.config

    @property
    def hidden_size(self) -> int:
        """F."""
        return self.config.hidden_size

    @property
    def num_patches_per_side(self) -> int:
        """H = W."""
        image, patch = self.config.image_size, self.config.patch_size
        assert isinstance(image, int)
        assert isinstance(patch, int)
        return image // patch

    @property
    def num_patches(self) -> int:
        """H * W."""
        return self.num_patches_per_side**2

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the visual tokens, (0, 0) where the class token spoils the grid."""
        side = 0 if self.select_feature == "cls_patch" else self.num_patches_per_side
        return side, side

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self._tower().dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self._tower().device

    def _tower(self) -> CLIPVisionModel:
        if self.vision_tower is None:
            raise ValueError(f"the vision tower {self.name} isn't loaded; call load_model() first")
        return self.vision_tower


def vision_config(name: str) -> CLIPVisionConfig:
    """Read a tower's sizes without its weights."""
    _check(name)
    return CLIPVisionConfig.from_pretrained(name)


def _check(name: str) -> None:
    """Refuse a path that isn't there before transformers takes it for a hub id."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and not Path(name).is_dir():
        raise ValueError(
            f"vision tower {name}: no such directory (relative paths start at the working directory); give"
            f" a CLIP "
            f"directory or a hub id like openai/clip-vit-large-patch14-336"
        )
