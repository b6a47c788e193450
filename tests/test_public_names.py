"""The names that outsiders import: lmms-eval's LLaVA adapter and code written for upstream LLaVA."""

import importlib
import inspect

import pytest

NAMES = {
    "llava.constants": [
        "IGNORE_INDEX",
        "IMAGE_TOKEN_INDEX",
        "DEFAULT_IMAGE_TOKEN",
        "DEFAULT_IMAGE_PATCH_TOKEN",
        "DEFAULT_IM_START_TOKEN",
        "DEFAULT_IM_END_TOKEN",
        "IMAGE_PLACEHOLDER",
        "LOGDIR",
        "CONTROLLER_HEART_BEAT_EXPIRATION",
        "WORKER_HEART_BEAT_INTERVAL",
    ],
    "llava.conversation": ["Conversation", "SeparatorStyle", "conv_templates", "default_conversation"],
    "llava.mm_utils": [
        "KeywordsStoppingCriteria",
        "divide_to_patches",
        "expand2square",
        "get_anyres_image_grid_shape",
        "get_model_name_from_path",
        "load_image_from_base64",
        "process_anyres_image",
        "process_images",
        "resize_and_pad_image",
        "select_best_resolution",
        "tokenizer_image_token",
    ],
    "llava.utils": ["disable_torch_init"],
    "llava.eval.run_llava": ["eval_model"],
    "llava.model": ["LlavaConfig", "LlavaLlamaForCausalLM"],
    "llava.model.builder": ["load_pretrained_model", "load_tokenizer"],
    "llava.model.llava_llama": ["LlavaLlamaForCausalLM"],
    "llava.train.train": ["train"],
}
VALUES = {
    "IGNORE_INDEX": -100,
    "IMAGE_TOKEN_INDEX": -200,
    "DEFAULT_IMAGE_TOKEN": "<image>",
    "DEFAULT_IMAGE_PATCH_TOKEN": "<im_patch>",
    "DEFAULT_IM_START_TOKEN": "<im_start>",
    "DEFAULT_IM_END_TOKEN": "<im_end>",
    "IMAGE_PLACEHOLDER": "<image-placeholder>",
    "LOGDIR": ".",
    "CONTROLLER_HEART_BEAT_EXPIRATION": 30,
    "WORKER_HEART_BEAT_INTERVAL": 15,
}
LOADER = [
    "model_path",
    "model_base",
    "model_name",
    "load_8bit",
    "load_4bit",
    "device_map",
    "device",
    "use_flash_attn",
]


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module]])
def test_a_public_name_can_be_imported(module, name):
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("name", "value"), VALUES.items())
def test_a_constant_has_upstreams_value(name, value):
    assert getattr(importlib.import_module("llava.constants"), name) == value


@pytest.mark.parametrize("template", ["v1", "vicuna_v1", "llava_v1", "plain"])
def test_a_template_can_be_chosen_by_upstreams_name(template):
    assert template in importlib.import_module("llava.conversation").conv_templates


def test_the_loader_takes_upstreams_arguments_in_upstreams_order():
    builder = importlib.import_module("llava.model.builder")
    assert list(inspect.signature(builder.load_pretrained_model).parameters)[: len(LOADER)] == LOADER


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("checkpoints/llava-v1.5-7b/", "llava-v1.5-7b"),
        ("out/llava-lora/checkpoint-50", "llava-lora_checkpoint-50"),
    ],
)
def test_a_models_name_is_the_end_of_its_path(path, name):
    assert importlib.import_module("llava.mm_utils").get_model_name_from_path(path) == name
