"""A stand-in for LLaVA that trains in a blink, and a folder with all that a real run reads."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from llava.model.tokenizer import load_tokenizer

TOKENIZER = Path(__file__).parents[2] / "golden" / "llava" / "common" / "tok_slow_nonlegacy"


class StubConfig(PretrainedConfig):
    model_type = "stub_llava"


class StubLlava(PreTrainedModel):
    """Predicts each token from the one before; `metrics` and `observe_step` as the real model has them."""

    config_class = StubConfig
    router_lr_scale = 4.0

    def __init__(self, config=None):
        super().__init__(config or StubConfig())
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(16, 8)
        self.model.vision_tower = nn.Linear(8, 8)
        self.model.mm_projector = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
        self.model.norm = nn.LayerNorm(8)
        self.model.reducer = nn.Linear(8, 8)
        self.lm_head = nn.Linear(8, 16)
        self.observed = []

    def forward(self, input_ids, labels, num_items_in_batch=None, **kwargs):
        hidden = self.model.mm_projector(self.model.embed_tokens(input_ids))
        logits = self.lm_head(self.model.norm(hidden + self.model.reducer(hidden)))[:, :-1]
        total = nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
        count = (labels[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss = total / count
        output = CausalLMOutputWithPast(loss=loss, logits=logits)
        output.metrics = {"rate": torch.tensor(0.5 + len(self.observed))}
        return output

    def observe_step(self, output):
        self.observed.append(float(output.loss.detach()))


class StubDataset(torch.utils.data.Dataset):
    """Twelve samples whose signed lengths say image (odd index) or text."""

    def __init__(self):
        self.modality_lengths = [(index + 1) * (1 if index % 2 else -1) for index in range(12)]

    def __len__(self):
        return len(self.modality_lengths)

    def __getitem__(self, index):
        ids = (torch.arange(5) + index) % 16
        return {"input_ids": ids, "labels": ids}


@pytest.fixture
def stub():
    torch.manual_seed(0)
    return SimpleNamespace(model=StubLlava(), dataset=StubDataset())


def write_base(folder, tokenizer_files):
    """Write a random two-layer Llama in the layout of lmsys/vicuna-*, generation config included."""
    tokenizer = load_tokenizer(str(tokenizer_files))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    vicuna = {"temperature": 0.9, "top_p": 0.6, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(vicuna))
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(tokenizer_files / name, folder)


def write_tower(folder):
    """Write a random CLIP tower of 4 x 4 patches in the layout of openai/clip-vit-*."""
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    CLIPVisionModel(config).save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 32},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def write_data(folder):
    """Write six images and the training files of both stages; the second has text-only samples too."""
    (folder / "images").mkdir()
    stage1, stage2 = [], []
    for index in range(6):
        Image.new("RGB", (40, 32), (40 * index, 90, 200)).save(folder / "images" / f"{index}.png")
        question = {"from": "human", "value": "<image>\nWhat is it?"}
        answer = {"from": "gpt", "value": f"Colour number {index}."}
        sample = {"id": str(index), "image": f"{index}.png", "conversations": [question, answer]}
        text = [{"from": "human", "value": "Say a word."}, {"from": "gpt", "value": f"Word {index}."}]
        stage1.append(sample)
        stage2 += [sample, {"id": f"text-{index}", "conversations": text}]
    (folder / "stage1.json").write_text(json.dumps(stage1))
    (folder / "stage2.json").write_text(json.dumps(stage2))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with a base model, a tower, images and the training files of both stages."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("world")
    write_base(folder / "base", TOKENIZER)
    write_tower(folder / "tower")
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def command(world):
    """Make the command line of one training run; further words come last and win."""

    def make(output, *words, stage=2):
        settings = {
            "model_name_or_path": world / "base",
            "vision_tower": world / "tower",
            "data_path": world / f"stage{stage}.json",
            "image_folder": world / "images",
            "output_dir": output,
            "version": "plain" if stage == 1 else "v1",
            "tune_mm_mlp_adapter": stage == 1,
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2,
            "mm_use_im_patch_token": False,
            "per_device_train_batch_size": 3,
            "max_steps": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "learning_rate": 1e-3,
            "disable_tqdm": True,
            "use_cpu": True,
        }
        flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return [*flags, *words]

    return make
