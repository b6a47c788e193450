"""The frozen CLIP tower: pixels to visual features. Shapes: N images, H x W patch grid, F feature width."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel
from transformers.utils import logging

from llava.model.clip_states import class_attention, encoder_layers, hidden_states
from llava.model.config import LlavaConfig
from llava.model.files import config_fields, find_file
from llava.model.reduction import AttendedFeatures, FrontConfig, front_config

logger = logging.get_logger(__name__)

FEATURES = ("patch", "cls_patch")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

_CLIP_IN_LLAVA = {r"^vision_tower\.": "", r"^model\.vision_tower\.": ""}
_CLIP_IN_LEGACY = r"^model\.vision_tower\.vision_tower"


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
        self.front = front_config(config.reduction)
        self.vision_tower = None
        self.image_processor = None
        if config.unfreeze_mm_vision_tower:
            self.vision_tower = CLIPVisionModel(vision_config(self.name))
        self.register_load_state_dict_pre_hook(_accept_legacy_names)

    def load_model(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> None:
        """Load image processor and, unless the checkpoint brought them, weights; freeze everything.

        Raises:
            ValueError: the directory doesn't exist or holds no CLIP vision model.
        """
        is_smaller = self.image_side != self.config.image_size
        self.image_processor = load_processor(self.name, self.image_side if is_smaller else None)
        if self.vision_tower is None:
            self.vision_tower = load_clip(self.name, dtype or torch.float32)
        self.vision_tower.requires_grad_(False)
        self.vision_tower.to(device, dtype)  # pyright: ignore[reportCallIssue, reportArgumentType] - its stub is wrong

    @property
    def is_loaded(self) -> bool:
        """Whether the image processor and the weights are there."""
        return self.vision_tower is not None and self.image_processor is not None

    def forward(self, pixels: Tensor, layers: Sequence[int] | None = None) -> Tensor | list[Tensor]:
        """Encode pixels (N, 3, h, w) to features (N, H*W, F) of the same dtype.

        `cls_patch` adds one row in front. Frozen weights, as `load_model` leaves them, record no graph; where
        a caller has set `requires_grad`, gradients flow.

        Args:
            pixels: the crops.
            layers: hidden states to give as a list, for projectors that ask for their own; None gives
                `mm_vision_select_layer` as a tensor.

        Raises:
            ValueError: the tower isn't loaded, or the pixels have another size than it takes.
        """
        states = self._states(pixels, [self.select_layer] if layers is None else layers)
        first = 1 if self.select_feature == "patch" else 0
        features = [state[:, first:].to(pixels.dtype) for state in states]
        return features[0] if layers is None else features

    def attended(self, pixels: Tensor) -> AttendedFeatures:
        """Encode pixels (N, 3, h, w), and tell how the layer that gave the features looked at them.

        Only the class token's row of that one layer's attention is made, from the layer's input; every layer
        keeps its own kernel.

        Raises:
            ValueError: as `forward`, or the features are the embedding's, which no attention has seen.
        """
        layers = encoder_layers(self._tower())
        index = self.select_layer % (len(layers) + 1)
        if index == 0:
            raise ValueError(
                f"mm_vision_select_layer={self.select_layer} takes the embedding, in front of all attention"
            )
        before, after = self._states(pixels, (index - 1, index))
        attention, keys = class_attention(layers[index - 1], before)
        side = self.num_patches_per_side
        return AttendedFeatures(after[:, 1:].to(pixels.dtype), attention, keys, (side, side))

    def _states(self, pixels: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Give hidden states (N, 1 + H*W, F) for pixels (N, 3, h, w); ValueError as `forward` says."""
        tower, size = self._tower(), self.image_side
        if pixels.shape[-2:] != (size, size):
            raise ValueError(
                f"{self.name} takes {size}x{size} pixels, got images of shape {tuple(pixels.shape)}"
            )
        is_trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(is_trained and torch.is_grad_enabled()):
            return hidden_states(tower, pixels.to(tower.device, tower.dtype), layers)

    @property
    def config(self) -> CLIPVisionConfig:
        """Sizes of the tower, also before its weights are loaded."""
        return vision_config(self.name) if self.vision_tower is None else self.vision_tower.config

    @property
    def hidden_size(self) -> int:
        """F."""
        return self.config.hidden_size

    @property
    def image_side(self) -> int:
        """Pixels along a side of what the tower takes; fewer than its own where a reduction asks for that."""
        return image_side(self.front, self.config)

    @property
    def num_patches_per_side(self) -> int:
        """H = W."""
        patch = self.config.patch_size
        assert isinstance(patch, int)
        return self.image_side // patch

    @property
    def num_patches(self) -> int:
        """H * W."""
        return self.num_patches_per_side**2

    @property
    def dummy_feature(self) -> Tensor:
        """(1, F) zeros, for code that stands in for an image."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

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


def image_side(front: FrontConfig | None, tower: CLIPVisionConfig) -> int:
    """Give the pixels along a side of what a tower takes; ValueError for a side that it can't read."""
    own, patch = tower.image_size, tower.patch_size
    assert isinstance(own, int)
    assert isinstance(patch, int)
    return own if front is None else front.image_side(own, patch)


def vision_config(name: str) -> CLIPVisionConfig:
    """Read a tower's sizes without its weights; an HF-format LLaVA directory is a tower, too."""
    _check(name)
    fields, _ = CLIPVisionConfig.get_config_dict(name)
    if _is_hf_llava(fields):
        return CLIPVisionConfig.from_dict(fields["vision_config"])
    return CLIPVisionConfig.from_pretrained(name)


def _is_hf_llava(fields: Mapping[str, Any]) -> bool:
    """Tell a config.json of transformers' Llava; CLIP's own may have a text_config, too."""
    return "text_config" in fields and fields.get("model_type") == "llava"


def load_processor(name: str, side: int | None = None) -> CLIPImageProcessorPil:
    """Load a tower's image processor, the one that works on PIL images alone, for its own size or another.

    An HF-format LLaVA directory that has none gets CLIP's own at the tower's size, with a notice: it can't be
    another one's.

    Raises:
        ValueError: the directory doesn't exist or has none, or one that can't be read.
    """
    _check(name)
    size: dict[str, Any] = {} if side is None else _square(side)
    try:
        return CLIPImageProcessorPil.from_pretrained(name, **size)
    except OSError as error:
        has_none = all(find_file(name, file) is None for file in PROCESSOR_FILES)
        if has_none and _is_hf_llava(config_fields(name)):
            own: Any = side or vision_config(name).image_size
            logger.warning("%s holds no image processor; taking CLIP's own for %s pixels a side", name, own)
            return CLIPImageProcessorPil(**_square(own))
        raise ValueError(f"vision tower {name} holds no preprocessor_config.json: {error}") from error


def _square(side: int) -> dict[str, Any]:
    """Give an image processor's settings for images of a size."""
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def load_clip(name: str, dtype: torch.dtype) -> CLIPVisionModel:
    """Load a tower's weights from a CLIP or HF-format LLaVA directory; other weights there are passed over.

    Raises:
        ValueError: the directory doesn't exist, or its weights can't be read or are incomplete.
    """
    options: dict[str, Any] = {"config": vision_config(name), "key_mapping": _CLIP_IN_LLAVA}
    try:
        loaded: Any = CLIPVisionModel.from_pretrained(name, dtype=dtype, output_loading_info=True, **options)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"vision tower {name}: its weights can't be read: {error}") from error
    model, info = loaded
    if info["missing_keys"]:
        raise ValueError(
            f"vision tower {name} lacks the weights {sorted(info['missing_keys'])}; give a complete "
            f"CLIP directory"
        )
    return model


def legacy_name(name: str) -> str:
    """Give the name under which LLaVA saves a parameter: the tower's with CLIP's `vision_model.` level.

    transformers 5 has dropped that level in memory, and what it writes depends on how the model was loaded.
    """
    return re.sub(rf"({_CLIP_IN_LEGACY}\.)(?!vision_model\.)", r"\1vision_model.", name)


def _accept_legacy_names(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Rename in `load_state_dict`, which applies none of the renamings that `from_pretrained` knows."""
    for name in [name for name in state if name.startswith(f"{prefix}vision_tower.vision_model.")]:
        state[name.replace(".vision_model.", ".", 1)] = state.pop(name)


def _check(name: str) -> None:
    """Refuse a path that isn't there before transformers takes it for a hub id."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_local and not Path(name).is_dir():
        raise ValueError(
            f"vision tower {name}: no such directory (relative paths start at the working directory); give"
            f" a CLIP "
            f"directory or a hub id like openai/clip-vit-large-patch14-336"
        )
