"""Upstream's entry script, `deepspeed llava/train/train_mem.py ...`: FlashAttention-2 where it can run."""

import importlib.util
import logging
import sys

import torch

from llava.train.__main__ import main
from llava.train.legacy_flags import split_flags

logger = logging.getLogger(__name__)

FLASH = "flash_attention_2"


def with_flash_attention(words: list[str]) -> list[str]:
    """Ask for FlashAttention-2 where the command line leaves the choice open and it can run."""
    flags = {flag.name: flag.words for flag in split_flags(words)}
    if "attn_implementation" in flags or "help" in flags:
        return words
    if flags.get("reduction", ("none",))[:1] != ("none",):
        return words  # a reduction has an attention of its own
    if importlib.util.find_spec("flash_attn") is None or not torch.cuda.is_available():
        logger.warning("flash-attn or a GPU for it is missing: training with torch's own attention")
        return words
    return [*words, "--attn_implementation", FLASH]


if __name__ == "__main__":
    main(with_flash_attention(sys.argv[1:]))
