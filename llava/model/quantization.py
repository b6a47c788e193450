"""8-bit and 4-bit loading through transformers' bitsandbytes configuration (upstream's settings)."""

import importlib.util

import torch
from transformers import BitsAndBytesConfig

KEPT_WHOLE = ["model.mm_projector", "model.vision_tower", "model.reducer", "lm_head"]
"""Modules that keep their precision: the projector as in upstream's training, routers because small changes
flip their choices. Full paths: transformers compares them with a name's beginning or its end."""


def quantization_config(
    *, load_8bit: bool, load_4bit: bool, compute_dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """Describe the quantisation that is asked for: none, LLM.int8, or nf4 with double quantisation.

    Raises:
        ValueError: both are asked for, or bitsandbytes isn't installed.
    """
    if not load_8bit and not load_4bit:
        return None
    if load_8bit and load_4bit:
        raise ValueError("load_8bit and load_4bit exclude each other; give one of them")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"{'load_8bit' if load_8bit else 'load_4bit'} needs bitsandbytes, which isn't installed: "
            f"pip install bitsandbytes, or load in float16 or bfloat16"
        )
    if load_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=KEPT_WHOLE)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=KEPT_WHOLE,
    )
