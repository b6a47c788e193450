"""A data root of golden questions with images, and a model that answers from its prompt alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from llava.conversation import conv_templates
from llava.eval.answers import AnswerFiles
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.inputs import PromptStyle
from llava.eval.runner import Plan, Session
from tests.llava.eval.golden import unpack

GOLDEN = Path(__file__).parents[2] / "golden" / "eval"
SUFFIX = "\nAnswer the question using a single word or phrase."


@pytest.fixture
def data_root(tmp_path):
    """The golden question and label files in LLaVA's layout, an image for every question, grades for POPE."""
    root = tmp_path / "data"
    unpack("gqa", root)
    unpack("pope", root)
    unpack("textvqa", root / "textvqa")
    official = json.loads((root / "gqa" / "data" / "testdev_balanced_questions.json").read_text())
    for entry in official.values():
        draw(root / "gqa" / "images" / f"{entry['imageId']}.jpg")
    path = root / "pope" / "llava_pope_test.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        line["grade"] = ("coarse", "fine")[number % 2]
        draw(root / "pope" / "val2014" / line["image"])
    write_lines(path, lines)
    return root


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), "red").save(path)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class CharacterTokenizer:
    """One id per character; 1 begins a text, 0 pads."""

    bos_token_id, pad_token_id = 1, 0

    def __call__(self, text):
        return SimpleNamespace(input_ids=[1, *(ord(character) for character in text)])

    def batch_decode(self, ids, skip_special_tokens):
        return ["".join(chr(i) for i in row if i > 1) + " " for row in ids.tolist()]


class EchoModel(nn.Module):
    """Says whether the ids of a prompt add up to an even number; remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.generation_config = SimpleNamespace(eos_token_id=ord("\0"))
        self.config = SimpleNamespace(image_aspect_ratio="pad")
        self.asked = []
        self.keywords = {}
        self.fails_after = None

    def generate_with_report(self, inputs, *, images, image_sizes, attention_mask, **keywords):
        has_image = (inputs < 0).any(1)
        if images is None:
            assert image_sizes is None
            assert not has_image.any()
        else:
            assert images.shape[0] == inputs.shape[0] == len(image_sizes)
            assert has_image.all()
        assert (inputs[~attention_mask] == 0).all()
        assert attention_mask[:, -1].all()
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise RuntimeError("out of memory")
        self.keywords = keywords
        self(inputs)
        self.asked += [len(row) for row in inputs]
        rows = zip(inputs, attention_mask, strict=True)
        answers = ["Yes" if row[mask].sum() % 2 == 0 else "No." for row, mask in rows]
        new_ids = [[ord(character) for character in answer.ljust(3, "\0")] for answer in answers]
        return torch.tensor(new_ids), [Report() for _ in answers]

    def forward(self, inputs):
        return inputs


@dataclass
class Report:
    route: tuple = ("1x1", "2x2")
    probabilities: tuple = ((0.5, 0.3, 0.2), (0.1, 0.1, 0.8))
    tokens_per_layer: tuple = (70, 70, 22)
    visual_tokens_per_layer: tuple = (64, 64, 16)
    visual_grids: tuple = ((8, 8),)
    dense_visual_tokens: int = 64


def image_processor(images, return_tensors):
    return {"pixel_values": torch.stack([torch.ones(3, 8, 8) for _ in images])}


image_processor.image_mean = (0.5, 0.5, 0.5)


@pytest.fixture
def session():
    return Session(
        model=EchoModel(),
        tokenizer=CharacterTokenizer(),
        image_processor=image_processor,
        style=PromptStyle(template=conv_templates["vicuna_v1"], routing=None, use_start_end=False),
        flops=lambda report, config: {"paper": (40, 100), "full": (100, 200)},
        model_id="echo",
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


@pytest.fixture
def make_plan(data_root, tmp_path):
    def make(name="pope", *, batch_size=4, rank=0, run="run", num_workers=0):
        files = AnswerFiles(tmp_path / run / name, rank)
        files.claim({"model": "echo"})
        return Plan(
            benchmark=BENCHMARKS[name],
            questions=BENCHMARKS[name].questions(data_root),
            files=files,
            data_root=data_root,
            generation={"max_new_tokens": 8},
            batch_size=batch_size,
            num_workers=num_workers,
        )

    return make
