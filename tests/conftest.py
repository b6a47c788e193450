"""Tiny random models in the layouts of real checkpoints: CPU, no download, a second to make."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llava.model.builder import load_tokenizer
from llava.model.reduction import parse_reduction
from llava.train.build import build_for_training

COMMON = Path(__file__).parent / "golden" / "llava" / "common"


@pytest.fixture(scope="session")
def tiny_clip() -> Path:
    """A CLIP directory: 56 pixels, 16 patches, 32 features."""
    return COMMON / "clip-tiny"


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A language model directory like Vicuna's, random, with the golden tokenizer of 1000 pieces.

    Initial weights are large, so that every token changes every other and equality tests can fail.
    """
    path = tmp_path_factory.mktemp("models") / "vicuna-tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    load_tokenizer(COMMON / "llava-tiny").save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_llava(tiny_base, tiny_clip):
    """A function that builds (tokenizer, model, image processor); arguments are the words of --reduction."""

    def build(*reduction: str, seed: int = 0, **options):
        torch.manual_seed(seed)
        settings = {
            "model_name_or_path": str(tiny_base),
            "vision_tower": str(tiny_clip),
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2,
            "mm_use_im_patch_token": False,
            "image_aspect_ratio": "pad",
            "model_max_length": 512,
            "reduction": parse_reduction(reduction),
        }
        return build_for_training(**{**settings, **options})

    return build


@pytest.fixture
def inputs(tmp_path) -> dict[str, str]:
    """Stand-ins for what a training script demands, as variables."""
    (tmp_path / "images").mkdir()
    for name in ("data.json", "mm_projector.bin"):
        (tmp_path / name).touch()
    paths = {"DATA": "data.json", "IMAGES": "images", "PROJECTOR": "mm_projector.bin", "OUTPUT": "out"}
    return {name: str(tmp_path / path) for name, path in paths.items()} | {"DRY_RUN": "1"}
