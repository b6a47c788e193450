"""LLaVA-1.5 as transformers' own LlavaForConditionalGeneration: configuration and names, both ways.

HF's vocabulary ends with two rows more, `<image>` and `<pad>`, and is padded to a multiple of 64; its tower
and projector lie beside the language model instead of inside it. Fields of config.json that HF doesn't know
are kept there as loose fields, so that the way back finds them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig
from transformers import LlavaConfig as HfLlavaConfig
from transformers.utils import logging

from llava.model.config import LlavaConfig

logger = logging.get_logger(__name__)

KEY_MAPPING = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
    r"^multi_modal_projector\.linear_1\.": "model.mm_projector.0.",
    r"^multi_modal_projector\.linear_2\.": "model.mm_projector.2.",
    r"^model\.multi_modal_projector\.linear_1\.": "model.mm_projector.0.",
    r"^model\.multi_modal_projector\.linear_2\.": "model.mm_projector.2.",
}
"""HF file names (classic, and those of transformers 5 in memory) to LLaVA's."""

TO_HF = {
    "lm_head.": "language_model.lm_head.",
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.": "language_model.model.",
}
"""LLaVA's names to HF's classic ones; the first that fits."""

LOOSE = (
    "image_aspect_ratio",
    "max_sequence_length",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "conversation_template",
    "mm_use_im_start_end",
    "mm_use_im_patch_token",
)
"""LLaVA's fields that have no place in HF's configuration."""

VOCABULARY_MULTIPLE = 64


def llava_config(path: str) -> LlavaConfig:
    """Read an HF-format config.json as LLaVA's; its own directory becomes the vision tower.

    The vocabulary still has HF's rows (`vocab_rows` says which are LLaVA's).

    Raises:
        ValueError: the model isn't a LLaVA-1.5: no Llama, no CLIP, another projector or several layers.
    """
    hf: Any = HfLlavaConfig.from_pretrained(path)
    loose, _ = HfLlavaConfig.get_config_dict(path)
    text, vision = hf.text_config, hf.vision_config
    expected = {
        "text_config.model_type": (text.model_type, "llama"),
        "vision_config.model_type": (vision.model_type, "clip_vision_model"),
        "projector_hidden_act": (hf.projector_hidden_act, "gelu"),
        "multimodal_projector_bias": (hf.multimodal_projector_bias, True),
        "type of vision_feature_layer": (type(hf.vision_feature_layer).__name__, "int"),
    }
    wrong = [
        f"{name}={found!r} instead of {want!r}" for name, (found, want) in expected.items() if found != want
    ]
    if wrong:
        raise ValueError(
            f"{path} is no LLaVA-1.5 in HF format, which is the only one read: {', '.join(wrong)}"
        )
    fields = {
        name: value for name, value in text.to_dict().items() if name not in ("model_type", "architectures")
    }
    fields |= {name: loose[name] for name in LOOSE if name in loose}
    if "image_aspect_ratio" not in loose:
        logger.warning(
            "%s doesn't say how images are made square; taking image_aspect_ratio=pad, LLaVA-1.5's",
            path,
        )
    fields.setdefault("image_aspect_ratio", "pad")
    fields["dtype"] = hf.dtype
    fields.setdefault("mm_use_im_patch_token", False)
    if fields.get("pad_token_id") is None or fields["pad_token_id"] >= hf.image_token_index:
        fields["pad_token_id"] = 0
    return LlavaConfig(
        **fields,
        mm_vision_tower=path,
        mm_projector_type="mlp2x_gelu",
        mm_hidden_size=vision.hidden_size,
        mm_vision_select_layer=hf.vision_feature_layer,
        mm_vision_select_feature="patch" if hf.vision_feature_select_strategy == "default" else "cls_patch",
        mm_patch_merge_type="flat",
    )


def vocab_rows(path: str) -> int:
    """Count the rows of an HF-format vocabulary that are LLaVA's: all in front of `<image>`."""
    hf: Any = HfLlavaConfig.from_pretrained(path)
    return hf.image_token_index


def hf_config(config: LlavaConfig, vision: CLIPVisionConfig, rows: int) -> HfLlavaConfig:
    """Describe a LLaVA model of `rows` vocabulary entries in HF's terms.

    Raises:
        ValueError: HF's LlavaForConditionalGeneration can't express it: a reduction, another projector than
            mlp2x_gelu, or another merge type than flat.
    """
    wrong = {
        "reduction": config.reduction is not None,
        "mm_projector_type": config.mm_projector_type != "mlp2x_gelu",
        "mm_patch_merge_type": config.mm_patch_merge_type != "flat",
        "image_aspect_ratio": config.image_aspect_ratio == "anyres",
    }
    if any(wrong.values()):
        raise ValueError(
            "transformers' LlavaForConditionalGeneration can't express "
            + ", ".join(f"{name}={getattr(config, name)!r}" for name, is_wrong in wrong.items() if is_wrong)
            + "; only plain LLaVA-1.5 (mlp2x_gelu, flat) has an HF format"
        )
    known = LlamaConfig().to_dict()
    text = {name: value for name, value in config.to_dict().items() if name in known}
    text |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": padded_rows(rows)}
    takes_patches = config.mm_vision_select_feature == "patch"
    side = int(vision.image_size) // int(vision.patch_size)  # pyright: ignore[reportArgumentType]
    loose: dict[str, Any] = {name: getattr(config, name) for name in LOOSE if hasattr(config, name)}
    loose |= {
        "pad_token_id": rows + 1,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
    }
    return HfLlavaConfig(
        text_config=LlamaConfig(**text),
        vision_config=vision,
        image_token_index=rows,
        image_seq_length=side**2 + (0 if takes_patches else 1),
        projector_hidden_act="gelu",
        vision_feature_layer=config.mm_vision_select_layer,
        vision_feature_select_strategy="default" if takes_patches else "full",
        tie_word_embeddings=False,
        **loose,
    )


def padded_rows(rows: int) -> int:
    """Count HF's vocabulary rows: two more, rounded up to a multiple of 64 (32000 -> 32064)."""
    return -(-(rows + 2) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def hf_weights(model: Mapping[str, Tensor], tower: Mapping[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Give LLaVA's weights (decoder and projector; tower) HF's classic names and vocabulary.

    The added rows are the mean of the others: a mean logit is never the largest, so greedy answers stay.
    """
    weights: dict[str, Tensor] = {}
    for name, value in model.items():
        if name.startswith("model.vision_tower."):
            continue
        start = next(start for start in TO_HF if name.startswith(start))
        is_vocabulary = name in ("model.embed_tokens.weight", "lm_head.weight")
        weights[TO_HF[start] + name.removeprefix(start)] = _grown(value, rows) if is_vocabulary else value
    for name, value in tower.items():
        weights["vision_tower.vision_model." + name.removeprefix("vision_model.")] = value
    return weights


def _grown(weight: Tensor, rows: int) -> Tensor:
    """Pad a vocabulary (V, D) to (padded, D)."""
    added = weight[:rows].mean(0, keepdim=True, dtype=torch.float32).to(weight.dtype)
    return torch.cat([weight[:rows], added.expand(padded_rows(rows) - rows, -1)])  # (padded, D)
