import logging

import pytest
import torch

from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.trainable import part_of, set_trainable


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.vision_tower.vision_model.encoder.layers.0.weight", "vision tower"),
        ("model.mm_projector.0.weight", "projector"),
        ("model.reducer.routers.0.weight", "reducer"),
        ("model.layers.0.mlp.up_proj.weight", "language model"),
        ("lm_head.weight", "language head"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "LoRA adapter"),
        ("base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight", "language model"),
        ("base_model.model.model.mm_projector.0.weight", "projector"),
        ("model.image_newline", "image newline"),
    ],
)
def test_a_parameter_belongs_to_the_part_its_name_says(name, part):
    assert part_of(name) == part


@pytest.fixture
def learned(stub, tmp_path):
    """Apply flags to the stub and give the names of what learns."""
    stub.model.model.image_newline = torch.nn.Parameter(torch.zeros(8))

    def apply(**flags):
        chosen = {
            name: flags.pop(name) for name in list(flags) if name in ModelArguments.__dataclass_fields__
        }
        training = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **flags)
        set_trainable(stub.model, ModelArguments(**chosen), training)
        return {name for name, parameter in stub.model.named_parameters() if parameter.requires_grad}

    return apply


PROJECTOR = {f"model.mm_projector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
REDUCER = {"model.reducer.weight", "model.reducer.bias"}
HEAD = {"lm_head.weight", "lm_head.bias"}
DECODER = {"model.embed_tokens.weight", "model.norm.weight", "model.norm.bias"}


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ({}, PROJECTOR | REDUCER | HEAD | DECODER),
        ({"tune_mm_mlp_adapter": True}, PROJECTOR),
        (
            {"tune_mm_mlp_adapter": True, "mm_use_im_start_end": True},
            PROJECTOR | {"model.embed_tokens.weight"},
        ),
        ({"freeze_mm_mlp_adapter": True}, REDUCER | HEAD | DECODER),
        ({"freeze_backbone": True}, PROJECTOR | REDUCER | HEAD),
        ({"lora_enable": True}, PROJECTOR | REDUCER),
        ({"lora_enable": True, "freeze_mm_mlp_adapter": True}, REDUCER),
        (
            {"lora_enable": True, "lora_bias": "all"},
            PROJECTOR | REDUCER | {"lm_head.bias", "model.norm.bias"},
        ),
    ],
)
def test_parts_learn_as_told(flags, names, learned):
    assert learned(**flags) == names


def test_the_decision_is_logged_as_a_table(learned, caplog):
    with caplog.at_level(logging.INFO):
        learned(freeze_backbone=True)
    assert caplog.messages[-1].splitlines() == [
        "part                  parameters         trained",
        "vision tower                  72               0",
        "projector                    144             144",
        "language model               144               0",
        "language head                144             144",
        "reducer                       72              72",
        "image newline                  8               0",
    ]
