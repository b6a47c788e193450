"""Pre-train the tiny vision tower: a CLIP vision model whose patch features tell what is in their cell.

Shapes: B boards, G = 64 cells, W tower width.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from llava.toy.render import CELL, IMAGE_SIDE, render_pixels
from llava.toy.world import COLORS, DIGITS, SIDE, random_scene

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
SELECT_LAYER = -2
"""The hidden state that LLaVA-1.5 reads."""
_NUM_CELLS = SIDE * SIDE
_SIZES = {"digit": len(DIGITS) + 1, "color": len(COLORS) + 1, "row": SIDE, "column": SIDE}
"""Classes per property of a cell; the last digit and the last color mean an empty cell."""


class CellReader(nn.Module):
    """Linear read-outs of a cell's properties from a patch feature; they exist in pre-training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in _SIZES.items()})

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Logits (B, G, classes) of each property from features (B, G, W)."""
        return {name: head(features) for name, head in self.heads.items()}


def train_tower(
    folder: Path, *, seed: int, steps: int, report: Callable[[str], None], batch: int = 32, rate: float = 2e-3
) -> dict[str, float]:
    """Train, save in the layout of openai/clip-vit-*, and return the accuracy of the linear read-outs."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    tower = CLIPVisionModel(_config())
    readers = nn.ModuleList([CellReader(tower.config.hidden_size) for _ in range(2)])
    parameters = [*tower.parameters(), *readers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
    )
    began = time.monotonic()
    for step in range(1, steps + 1):
        pixels, labels = _batch(rng, batch)
        logits, loss = _read(tower, readers, pixels, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            shares = {name: f"{share:.3f}" for name, share in _accuracy(logits, labels).items()}
            report(f"tower {step}/{steps} {time.monotonic() - began:.0f}s loss {loss.item():.3f} {shares}")
        if step % 250 == 0 or step == steps:
            save_tower(tower, folder)
    pixels, labels = _batch(rng, 256)
    with torch.no_grad():
        return _accuracy(_read(tower, readers, pixels, labels)[0], labels)


def _read(
    tower: CLIPVisionModel, readers: nn.ModuleList, pixels: Tensor, labels: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """Logits from the layer that LLaVA reads, and the loss, which keeps features near size 1."""
    states = tower(pixels, output_hidden_states=True).hidden_states
    # The last layer is taught a little too, or it would stay random.
    logits = [reader(states[layer][:, 1:]) for reader, layer in zip(readers, (SELECT_LAYER, -1), strict=True)]
    size = states[SELECT_LAYER][:, 1:].square().mean()
    return logits[0], _loss(logits[0], labels) + 0.2 * _loss(logits[1], labels) + 0.01 * (size - 1).square()


def save_tower(tower: CLIPVisionModel, folder: Path) -> None:
    """Save in half precision under CLIP's own names (`vision_model.*`), without a text tower."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        f"vision_model.{name.removeprefix('vision_model.')}": tensor.half().contiguous()
        for name, tensor in tower.state_dict().items()
        if not name.endswith("position_ids")
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    CLIPConfig(
        vision_config=tower.config.to_dict(), projection_dim=tower.config.projection_dim
    ).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIDE},
        crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE},
        image_mean=list(MEAN),
        image_std=list(DEVIATION),
    ).save_pretrained(folder)


def _config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=3,
        image_size=IMAGE_SIDE,
        patch_size=CELL,
        projection_dim=64,
    )


def _batch(rng: Generator, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Pixels (B, 3, 128, 128) and labels (B, G) of freshly drawn boards."""
    scenes = [random_scene(rng) for _ in range(size)]
    drawn = torch.tensor(np.stack([render_pixels(scene, rng) for scene in scenes]))
    scaled = (drawn / 255 - torch.tensor(MEAN)) / torch.tensor(DEVIATION)
    cells = torch.arange(_NUM_CELLS).expand(size, -1)
    labels = {
        "digit": _classes([scene.digits for scene in scenes], len(DIGITS)),
        "color": _classes([scene.colors for scene in scenes], len(COLORS)),
        "row": cells // SIDE,
        "column": cells % SIDE,
    }
    return scaled.permute(0, 3, 1, 2), labels  # (B, 3, 128, 128)


def _classes(grids: list[np.ndarray], empty: int) -> Tensor:
    flat = torch.tensor(np.stack(grids)).flatten(1)  # (B, G)
    return torch.where(flat < 0, empty, flat)


def _loss(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    losses = [functional.cross_entropy(logits[name].flatten(0, 1), labels[name].flatten()) for name in _SIZES]
    return torch.stack(losses).sum()


def _accuracy(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, float]:
    return {name: (logits[name].argmax(-1) == labels[name]).float().mean().item() for name in _SIZES}
