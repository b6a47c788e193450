"""The sizes of the models that are timed: presets, and configurations for transformers and for us."""

from dataclasses import dataclass, replace
from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig
from transformers import LlavaConfig as HfLlavaConfig

from llava.model.config import LlavaConfig

PATCH = 14
"""Pixels along a side of a patch, as in CLIP ViT-L/14."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a LLaVA model with random weights, and of its prompts."""

    hidden_size: int
    """Width of the decoder."""
    intermediate_size: int
    """Width of its feed-forward layers."""
    num_layers: int
    """Decoder layers."""
    num_heads: int
    """Attention heads."""
    num_kv_heads: int
    """Key/value heads."""
    vocab_size: int = 32000
    """Rows of embedding and head."""
    grid: int = 24
    """Rows and columns of an image's visual tokens."""
    text: int = 60
    """Text tokens of a prompt (in training: with its answer)."""
    tower_width: int = 1024
    """Width of the vision tower."""
    tower_layers: int = 24
    """Layers of the vision tower."""

    def __post_init__(self) -> None:
        """Refuse sizes that make no model; the message names the field, the rule and the value."""
        if self.hidden_size % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must divide hidden_size and be a multiple of num_kv_heads, got hidden_size="
                f"{self.hidden_size}, num_heads={self.num_heads}, num_kv_heads={self.num_kv_heads}"
            )
        if self.num_layers < 4 or self.grid < 1 or self.text < 2 or self.vocab_size < 8:
            raise ValueError(
                f"a benchmark needs num_layers of 4 or more, grid of 1 or more, text of 2 or more and "
                f"vocab_size of 8 or more, got {self}"
            )

    @property
    def visual(self) -> int:
        """Visual tokens of a prompt."""
        return self.grid**2

    @property
    def tokens(self) -> int:
        """All tokens of a prompt."""
        return self.visual + self.text

    @property
    def dpe_layers(self) -> tuple[int, ...]:
        """A DPE after every quarter of the decoder, as the paper has them: 8, 16, 24 of 32."""
        return tuple(self.num_layers * quarter // 4 for quarter in (1, 2, 3))

    def with_sizes(self, given: dict[str, int | None]) -> "Shape":
        """Replace the sizes that were given."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "vocab_size",
    "grid",
    "text",
    "tower_width",
    "tower_layers",
)
"""Fields of a Shape that flags may override: all of them."""
PRESETS = {
    "tiny": Shape(
        hidden_size=64,
        intermediate_size=96,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        vocab_size=128,
        grid=8,
        tower_width=32,
        tower_layers=2,
    ),
    "small": Shape(hidden_size=512, intermediate_size=1376, num_layers=8, num_heads=8, num_kv_heads=8),
    "default": Shape(hidden_size=2048, intermediate_size=5504, num_layers=8, num_heads=16, num_kv_heads=16),
    "7b": Shape(hidden_size=4096, intermediate_size=11008, num_layers=32, num_heads=32, num_kv_heads=32),
    "13b": Shape(hidden_size=5120, intermediate_size=13824, num_layers=40, num_heads=40, num_kv_heads=40),
}
"""tiny is for tests, small for profiles, default for the figures on a CPU, the others for GPUs."""


def llama_fields(shape: Shape) -> dict[str, Any]:
    """Give the decoder's fields; nothing ends an answer early."""
    return {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }


def tower_config(shape: Shape) -> CLIPVisionConfig:
    """Describe a CLIP tower that gives the shape's grid; the defaults are those of ViT-L/14 at 336 pixels."""
    return CLIPVisionConfig(
        hidden_size=shape.tower_width,
        intermediate_size=4 * shape.tower_width,
        num_hidden_layers=shape.tower_layers,
        num_attention_heads=max(1, shape.tower_width // 64),
        image_size=PATCH * shape.grid,
        patch_size=PATCH,
    )


def reference_config(shape: Shape) -> HfLlavaConfig:
    """Describe transformers' own LLaVA; its image token is the last row of the vocabulary."""
    return HfLlavaConfig(
        text_config=LlamaConfig(**llama_fields(shape)),
        vision_config=tower_config(shape),
        image_token_index=shape.vocab_size - 1,
        image_seq_length=shape.visual,
        projector_hidden_act="gelu",
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )


def our_config(shape: Shape, tower: str | None, reduction: dict[str, Any] | None) -> LlavaConfig:
    """Describe our LLaVA of the same shape.

    Args:
        shape: the sizes.
        tower: directory with the tower's config.json, or None for a decoder alone.
        reduction: `to_dict()` of a method's configuration, or None for the dense model.
    """
    return LlavaConfig(
        **llama_fields(shape),
        reduction=reduction,
        mm_vision_tower=tower,
        mm_projector_type="mlp2x_gelu",
        mm_hidden_size=shape.tower_width,
        mm_use_im_patch_token=False,
        unfreeze_mm_vision_tower=tower is not None,
    )
