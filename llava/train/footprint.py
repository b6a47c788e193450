"""What a training run takes, computed from shapes before anything large is loaded: memory and disk in bytes.

Parameters are counted on a model without storage, so the numbers are those of the model that will be built.
Memory is that of AdamW and of the engine's rules; activations are what autograd keeps of a Llama layer,
counted per token by hooks on a real one (tests/llava/train/test_footprint.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import CLIPVisionModel

from llava.model.config import LlavaConfig
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.projector_options import asked_options
from llava.model.reduction import MethodConfig
from llava.model.vision_tower import vision_config
from llava.train.arguments import Arguments, TrainingArguments
from llava.train.build import configure
from llava.train.engine_file import engine_sections
from llava.train.lora import add_adapter
from llava.train.trainable import LANGUAGE_MODEL, VISION_TOWER, choose_trainable

FULL_BYTES, HALF_BYTES = 4, 2
MASTER_BYTES, MOMENT_BYTES = 4, 8
"""Of a parameter that AdamW trains: DeepSpeed's float32 copy, and both moments."""
BUCKET = 2 * 500_000_000
"""Bytes that ZeRO-2 and 3 hold for communication: two buckets of the default size, or less."""
MAX_LIVE = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered at a time (`stage3_max_live_parameters` of scripts/zero3.json)."""


class Counts(NamedTuple):
    """Numbers of parameters, and the sizes that activations follow from."""

    parts: dict[str, list[int]]
    """By part of the model: in all, and trained."""
    config: LlavaConfig

    @property
    def total(self) -> int:
        """Parameters in all."""
        return sum(total for total, _ in self.parts.values())

    @property
    def trained(self) -> int:
        """Parameters that learn."""
        return sum(trained for _, trained in self.parts.values())

    @property
    def tower(self) -> int:
        """Parameters of the frozen vision tower, which checkpoints leave out."""
        return self.parts[VISION_TOWER][0]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Who holds what: DeepSpeed's ZeRO stage (0: no DeepSpeed), ranks, and bytes per number."""

    stage: int
    world_size: int
    is_half: bool
    """Whether forward and backward run in bfloat16 or float16."""
    bits: int = 16
    """Of the frozen language model's weights."""
    keeps_frozen_half: bool = False
    """Without DeepSpeed: whether frozen weights are held in half precision (LoRA)."""
    offloads_optimizer: bool = False
    offloads_parameters: bool = False

    @classmethod
    def of(cls, training: TrainingArguments, world_size: int) -> "Engine":
        """Read the engine off the flags; ValueError if the --deepspeed file can't be read."""
        is_half = training.bf16 or training.fp16
        zero = zero_section(training)
        return cls(
            stage=int(zero.get("stage", 0)) if zero is not None else 0,
            world_size=world_size,
            is_half=is_half,
            bits=training.bits,
            keeps_frozen_half=is_half and training.lora_enable,
            offloads_optimizer=_is_offloaded(zero, "offload_optimizer"),
            offloads_parameters=_is_offloaded(zero, "offload_param"),
        )


class Memory(NamedTuple):
    """Bytes on one GPU, by what they are for; the host's share of it where ZeRO offloads."""

    held: dict[str, float]
    """What is there all the time."""
    activations: float
    """What one micro batch adds."""
    host: float

    @property
    def total(self) -> float:
        """The peak."""
        return sum(self.held.values()) + self.activations


def count_parameters(arguments: Arguments, reduction: MethodConfig | None) -> Counts:
    """Count the parameters of the model that a command line builds, without allocating any.

    Raises:
        ValueError: flags that contradict the base, or a base that can't be read.
    """
    model, data, training = arguments
    names = ("mm_projector_type", "mm_vision_select_layer", "mm_vision_select_feature", "mm_patch_merge_type")
    fields: dict[str, Any] = {name: getattr(model, name) for name in names}
    fields["mm_projector_options"] = asked_options(model.mm_projector_type, model.mm_projector_options)
    fields |= {"mm_vision_tower": model.vision_tower, "image_aspect_ratio": data.image_aspect_ratio}
    config, _ = configure(str(model.model_name_or_path), fields, reduction, training.cache_dir)
    with torch.device("meta"):
        built: Any = LlavaLlamaForCausalLM(config)
        built.get_vision_tower().vision_tower = CLIPVisionModel(vision_config(str(model.vision_tower)))
        built = add_adapter(built, training) if training.lora_enable else built
    return Counts(choose_trainable(built, model, training), config)


def zero_section(training: TrainingArguments) -> dict[str, Any] | None:
    """Read `zero_optimization` of the --deepspeed file; None without DeepSpeed."""
    if training.deepspeed is None:
        return None
    if isinstance(training.deepspeed, dict):
        return training.deepspeed.get("zero_optimization", {})
    return engine_sections(training.deepspeed)["zero_optimization"]


def held_bytes(counts: Counts, engine: Engine) -> Memory:
    """Compute what weights, gradients and optimizer take on one GPU, and on the host per GPU."""
    frozen, trained, ranks = counts.total - counts.trained, counts.trained, engine.world_size
    if engine.stage == 0:
        frozen_bytes = frozen * (HALF_BYTES if engine.keeps_frozen_half else FULL_BYTES)
        if engine.bits < 16:
            whole = counts.parts[LANGUAGE_MODEL][0]
            frozen_bytes = (frozen - whole) * HALF_BYTES + whole * engine.bits / 8
        held = {
            "weights": frozen_bytes + trained * FULL_BYTES,
            "gradients": trained * FULL_BYTES * (1 if ranks == 1 else 2),  # DDP's buckets are a copy
            "optimizer": float(trained * MOMENT_BYTES),
        }
        return Memory(held, 0.0, 0.0)
    size = HALF_BYTES if engine.is_half else FULL_BYTES
    held = {
        "weights": counts.total * size / (ranks if engine.stage == 3 else 1),
        "gradients": trained * size / (ranks if engine.stage >= 2 else 1),
        "optimizer": trained * (MASTER_BYTES + MOMENT_BYTES) / ranks,
    }
    host = 0.0
    if engine.offloads_parameters:
        host, held["weights"] = held["weights"], 0.0
    if engine.offloads_optimizer:  # Adam runs on the host, where gradients go one by one, in float32
        host += held["optimizer"] + trained * FULL_BYTES / ranks
        held["optimizer"] = held["gradients"] = 0.0
    gathered = min(MAX_LIVE, counts.total) * size if engine.stage == 3 else 0.0
    held["engine's buffers"] = gathered + (min(BUCKET, 2 * trained * size) if ranks > 1 else 0.0)
    return Memory(held, 0.0, host)


def activation_bytes(
    tokens_per_layer: Sequence[float],
    config: LlavaConfig,
    *,
    num_learned: int,
    is_half: bool,
    is_autocast: bool,
    is_checkpointed: bool,
) -> float:
    """Compute what autograd keeps of one micro batch.

    Args:
        tokens_per_layer: tokens of the whole micro batch that every layer sees (packed: no padding).
        config: sizes of the decoder.
        num_learned: rows that the language head predicts.
        is_half: forward in half precision.
        is_autocast: half precision by autocast over float32 weights, i.e. without DeepSpeed.
        is_checkpointed: every layer keeps its input only, and one layer at a time is computed again.
    """
    d, m = config.hidden_size, config.intermediate_size
    heads = config.num_attention_heads
    key_value = d * (config.num_key_value_heads or heads) // heads
    per_token = 32 * d + 8 * key_value + 16 * m
    if is_half:
        per_token = 34 * d + 4 * key_value + 11 * m if is_autocast else 20 * d + 4 * key_value + 8 * m
    size = HALF_BYTES if is_half else FULL_BYTES
    of_input = d * (size if not is_autocast else FULL_BYTES)
    backward = size * (4 * d + 3 * m)  # gradients inside the layer that is being left
    if is_checkpointed:
        layers = sum(tokens_per_layer) * of_input + max(tokens_per_layer) * (per_token + backward)
    else:
        layers = sum(tokens_per_layer) * per_token + tokens_per_layer[-1] * backward
    layers += tokens_per_layer[-1] * 2 * d * FULL_BYTES  # the last norm
    head = (
        num_learned * config.vocab_size * (size + 3 * FULL_BYTES)
    )  # logits, in float32, and their gradients
    return layers + head


def checkpoint_bytes(counts: Counts, training: TrainingArguments, engine: Engine) -> tuple[float, float]:
    """Compute the size of one checkpoint-N folder and of the result, over all ranks."""
    size = HALF_BYTES if engine.is_half and engine.stage else FULL_BYTES
    kept = counts.trained if counts.trained < (counts.total - counts.tower) else counts.total - counts.tower
    result = kept * size
    if training.save_only_model:
        return result, result
    if engine.stage == 0:
        return result + counts.trained * MOMENT_BYTES, result
    # DeepSpeed's own state: float32 copies and moments of what learns, and all weights in the half dtype
    own = counts.trained * (MASTER_BYTES + MOMENT_BYTES) + counts.total * size
    return result + own, result


def readable(size: float) -> str:
    """Write bytes for people.

    >>> readable(3 * 2**30), readable(2**20)
    ('3.0 GiB', '1.0 MiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def _is_offloaded(zero: dict[str, Any] | None, name: str) -> bool:
    return ((zero or {}).get(name) or {}).get("device", "none") != "none"
