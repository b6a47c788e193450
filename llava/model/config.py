"""`LlavaConfig`: Llama's fields, LLaVA-1.5's multimodal fields of config.json, and the reduction."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from llava.model.files import config_fields
from llava.model.reduction import PyramidLlamaConfig
from llava.model.released import with_reduction

MODEL_TYPES = ("llava", "llava_llama", "llama")
"""Published LLaVA-1.5; what upstream's code and this one write; a plain Llama with or without mm fields."""


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
    """linear, mlpNx_gelu, identity, or a projector that gives fewer tokens (docs/projectors.md)."""
    mm_projector_options: dict[str, Any] | None = None
    """All options of such a projector; None for the others, which have none."""
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
    image_grid_pinpoints: Any = None
    """Candidate resolutions of anyres: a list of (width, height), or the text of one."""
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


def read_config(path: str, *, cache_dir: str | None = None, **overrides: Any) -> LlavaConfig:
    """Read a checkpoint's config.json as LlavaConfig, whatever model_type it declares.

    A relative `mm_vision_tower` that doesn't lie in the working directory is looked for in the checkpoint, so
    that a directory may bring its tower along. The authors' `pooling` becomes `reduction`.

    Raises:
        ValueError: the fields don't describe a Llama decoder, are those of transformers' own Llava, or ask
            for what isn't supported.
    """
    fields = config_fields(path, cache_dir=cache_dir)
    declared = fields.get("model_type", LlavaConfig.model_type)
    if "text_config" in fields:
        raise ValueError(
            f"{path} is an HF-format checkpoint (its config.json has a text_config); convert it first: "
            f"python -m llava.model.convert --src {path} --dst FOLDER --to llava"
        )
    if declared not in MODEL_TYPES:
        raise ValueError(
            f"{path}/config.json declares model_type {declared!r}; expected one of {', '.join(MODEL_TYPES)}. "
            f"Only Llama decoders are supported"
        )
    if fields.get("s2"):
        raise ValueError(f"{path}/config.json asks for a multi-scale tower (s2), which isn't supported")
    if fields.get("is_multipath_encoder"):
        raise ValueError(
            f"{path}/config.json asks for LLaVA-HR's two towers (is_multipath_encoder), which isn't supported"
        )
    fields = with_reduction(fields, path, cache_dir=cache_dir)
    fields["model_type"] = LlavaConfig.model_type  # transformers owns "llava" and would warn
    config = LlavaConfig.from_dict(fields, **overrides)
    config.name_or_path = path
    tower = config.mm_vision_tower
    if tower is not None and not Path(tower).is_dir() and (Path(path) / tower).is_dir():
        config.mm_vision_tower = str(Path(path) / tower)
    return config


AutoConfig.register(LlavaConfig.model_type, LlavaConfig)
