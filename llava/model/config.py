"""`LlavaConfig`: Llama's fields, LLaVA-1.5's multimodal fields of config.json, and the reduction."""

from typing import Any

from transformers import AutoConfig

from llava.model.reduction import PyramidLlamaConfig


class LlavaConfig(PyramidLlamaConfig):
    """Configuration of a LLaVA checkpoint; the defaults are what LLaVA-1.5 assumes where a field is missing.

    Directories whose `model_type` is `llava`, `llava_llama` or plain `llama` with these fields are read by
    this class (`LlavaConfig.from_pretrained`); it always writes `llava_llama`, since transformers owns
    `llava`.
    """

    model_type = "llava_llama"

    mm_vision_tower: str | None = None
    """CLIP directory or hub id; its presence makes the model multimodal."""
    mm_projector_type: str = "linear"
    """linear, mlpNx_gelu or identity."""
    mm_hidden_size: int = 1024
    """Width of the visual features."""
    mm_vision_select_layer: int = -2
    """Index into the tower's hidden states; 0 is the embedding, k the output of layer k."""
    mm_vision_select_feature: str = "patch"
    """patch drops the class token, cls_patch keeps it."""
    mm_patch_merge_type: str = "flat"
    """How the crops of one image are joined."""
    mm_use_im_start_end: bool = False
    """Whether `<im_start>` and `<im_end>` stand around every image."""
    mm_use_im_patch_token: bool = True
    """Whether the vocabulary has `<im_patch>` (legacy; LLaVA-1.5 says false)."""
    image_aspect_ratio: str = "square"
    """pad, anyres, or anything else for resize and centre crop."""
    tokenizer_padding_side: str = "right"
    """Side on which merged sequences are padded."""
    tokenizer_model_max_length: int | None = None
    """Merged sequences are cut here, as upstream does in training and inference."""
    tune_mm_mlp_adapter: bool = False
    """Whether only the projector was trained (stage 1)."""
    router_token_id: int | None = None
    """Vocabulary id of the routing token, where the reduction reads one."""
    unfreeze_mm_vision_tower: bool = False
    """Whether the vision tower's weights are read from this checkpoint instead of `mm_vision_tower`."""


def read_config(path: str, **overrides: Any) -> LlavaConfig:
    """Read a checkpoint's config.json as LlavaConfig, whatever model_type it declares.

    Raises:
        ValueError: the fields don't describe a Llama decoder.
    """
    config = LlavaConfig.from_pretrained(path, **overrides)
    declared = LlavaConfig.get_config_dict(path)[0].get("model_type", "llava_llama")
    if declared not in ("llava", "llava_llama", "llama"):
        raise ValueError(
            f"{path}/config.json declares model_type {declared!r}; expected llava, llava_llama or llama. "
            f"Only Llama decoders are supported"
        )
    return config


AutoConfig.register(LlavaConfig.model_type, LlavaConfig)
