"""Writes a tiny checkpoint in the layout of the paper's authors, with nothing of `llava` or `dpn`.

A LLaVA directory of transformers 4.31: `model_type` llava, `pooling` in config.json, routers inside the
decoder layers, `<ROUTER>` as one added token with a row of its own, rotary buffers, and the vision tower that
was trained along.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel

TOKENIZER = Path(__file__).parents[2] / "golden/llava/common/tok_slow_nonlegacy"
WIDTH, FFN, LAYERS, HEADS, VOCABULARY, ROUTER_ID = 64, 96, 5, 4, 1001, 1000
FEATURES, SIDE = 32, 48
KERNELS = [[1, 1], [1, 2], [2, 2]]
TOWER = "model.vision_tower.vision_tower."


def published_pooling(indices=(0, 1, 3), **changed):
    """Give the dictionary of the published setting, for a decoder of five layers."""
    return {
        "pooling_type": "adaptive",
        "pooling_layers": [{"index": index, "kernel_size": KERNELS, "stride": KERNELS} for index in indices],
        "pooling_function": "max",
        "pooling_location": "post",
        "prepooling": False,
        "use_special_token": True,
        "detach_cls_token_to_predict": False,
        "router_version": "v1",
        **changed,
    }


def write_tower(folder):
    """Write a CLIP of 48 pixels, whose 12x12 patches leave odd grids after two 2x2 poolings."""
    torch.manual_seed(1)
    sizes = {"hidden_size": FEATURES, "intermediate_size": 64, "num_hidden_layers": 3, "patch_size": 4}
    config = CLIPVisionConfig(**sizes, num_attention_heads=4, image_size=SIDE, initializer_range=0.3)
    tower = CLIPVisionModel(config)
    for parameter in tower.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.15)
    tower.save_pretrained(folder)
    crop = {"height": SIDE, "width": SIDE}
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": crop,
        "size": {"shortest_edge": SIDE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def write_checkpoint(folder, tower, pooling=None, seed=0, **fields):
    """Write config.json, the weights in two shards, and the tokenizer's files."""
    pooling = published_pooling() if pooling is None else pooling
    folder.mkdir()
    config = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-05,
        "pad_token_id": 0,
        "torch_dtype": "float32",
        "transformers_version": "4.31.0",
        "mm_vision_tower": str(tower),
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": FEATURES,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "image_aspect_ratio": "pad",
        "freeze_vision": False,
        "is_multipath_encoder": False,
        "input_image_size": None,
        "pooling": pooling,
        **fields,
    }
    (folder / "config.json").write_text(json.dumps(config))
    weights = random_weights(pooling, seed) | {
        f"{TOWER}vision_model.{name.removeprefix('vision_model.')}": value * 1.1
        for name, value in load_file(tower / "model.safetensors").items()
    }
    write_weights(folder, weights)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<ROUTER>": ROUTER_ID}))
    return folder


def write_weights(folder, weights):
    """Write two shards and their index."""
    names = sorted(weights)
    shards = {f"pytorch_model-0000{part + 1}-of-00002.bin": names[part::2] for part in range(2)}
    for file, chosen in shards.items():
        torch.save({name: weights[name] for name in chosen}, folder / file)
    index = {name: file for file, chosen in shards.items() for name in chosen}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def random_weights(pooling, seed):
    """Draw weights so large that every token changes every other, and that routers have opinions."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, mean=0.0, std=0.2):
        return mean + std * torch.randn(*shape, generator=generator)

    weights = {
        "model.embed_tokens.weight": draw(VOCABULARY, WIDTH),
        "lm_head.weight": draw(VOCABULARY, WIDTH),
    }
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        for name in "qkvo":
            weights[f"{start}self_attn.{name}_proj.weight"] = draw(WIDTH, WIDTH)
        for name, shape in {"gate": (FFN, WIDTH), "up": (FFN, WIDTH), "down": (WIDTH, FFN)}.items():
            weights[f"{start}mlp.{name}_proj.weight"] = draw(*shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{start}{name}.weight"] = draw(WIDTH, mean=1.0)
        weights[f"{start}self_attn.rotary_emb.inv_freq"] = 10000.0 ** -(torch.arange(0, 16, 2) / 16)
    weights["model.norm.weight"] = draw(WIDTH, mean=1.0)
    for layer, width in ((0, FEATURES), (2, WIDTH)):
        weights[f"model.mm_projector.{layer}.weight"] = draw(WIDTH, width)
        weights[f"model.mm_projector.{layer}.bias"] = draw(WIDTH)
    for place in pooling["pooling_layers"] if pooling["pooling_type"] == "adaptive" else []:
        start = f"model.layers.{place['index']}.pooling_router."
        experts = len(place["kernel_size"])
        if pooling["router_version"] == "v2":
            weights[f"{start}predictor.weight"] = draw(experts, WIDTH, std=1.5)
            continue
        weights[f"{start}mlp1.0.weight"] = draw(WIDTH, mean=1.0)
        weights[f"{start}mlp1.0.bias"] = draw(WIDTH)
        weights[f"{start}mlp1.1.weight"] = draw(WIDTH // 4, WIDTH)
        weights[f"{start}predictor.weight"] = draw(experts, WIDTH // 4, std=4.0)
    return weights
