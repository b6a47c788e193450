"""The parts of the model, by the names of their parameters, and which of them learn."""

import logging

from torch import nn

from llava.train.arguments import ModelArguments, TrainingArguments

logger = logging.getLogger(__name__)

LANGUAGE_MODEL = "language model"
LANGUAGE_HEAD = "language head"
VISION_TOWER = "vision tower"
PROJECTOR = "projector"
REDUCER = "reducer"
ADAPTER = "LoRA adapter"
IMAGE_NEWLINE = "image newline"
ROUTING_TOKEN = "routing token"

_PARTS = {
    "vision_tower.": VISION_TOWER,
    "mm_projector.": PROJECTOR,
    "reducer.": REDUCER,
    ".lora_": ADAPTER,
    "image_newline": IMAGE_NEWLINE,
    ".router_row": ROUTING_TOKEN,
    "lm_head.": LANGUAGE_HEAD,
}
_ALWAYS_SHOWN = (VISION_TOWER, PROJECTOR, LANGUAGE_MODEL, LANGUAGE_HEAD, REDUCER)


def part_of(name: str) -> str:
    """Name the part of the model that a parameter belongs to."""
    return next((part for key, part in _PARTS.items() if key in name), LANGUAGE_MODEL)


def set_trainable(model: nn.Module, arguments: ModelArguments, training: TrainingArguments) -> None:
    """Decide which parts learn, as `choose_trainable` does, and log the decision as a table."""
    counts = choose_trainable(model, arguments, training)
    rows = [
        f"{part:<16}{total:>16,}{trained:>16,}"
        for part, (total, trained) in counts.items()
        if total or part in _ALWAYS_SHOWN
    ]
    logger.info("%s", "\n".join([f"{'part':<16}{'parameters':>16}{'trained':>16}", *rows]))


def choose_trainable(
    model: nn.Module, arguments: ModelArguments, training: TrainingArguments
) -> dict[str, list[int]]:
    """Decide which parts learn; give their numbers of parameters, in all and trained.

    The decisions are LLaVA's (spec: trainable parameters): the tower never learns; stage 1 trains the
    projector alone (and the embeddings of image start and end tokens, if there are any); a frozen backbone
    leaves the language head to learn; adapters learn in place of the weights they are added to. The row
    that ends the lines of an image's crops stays as it is, because training sees every image as one crop.
    """
    only_projector, has_adapter = arguments.tune_mm_mlp_adapter, training.lora_enable
    learns = {
        VISION_TOWER: False,
        PROJECTOR: not training.freeze_mm_mlp_adapter,
        LANGUAGE_MODEL: not only_projector and not has_adapter and not arguments.freeze_backbone,
        LANGUAGE_HEAD: not only_projector and not has_adapter,
        REDUCER: not only_projector,
        ADAPTER: has_adapter,
        IMAGE_NEWLINE: False,
        ROUTING_TOKEN: not only_projector,
    }
    counts = {part: [0, 0] for part in learns}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        is_new_token = only_projector and arguments.mm_use_im_start_end and "embed_tokens." in name
        is_bias = has_adapter and _is_chosen_bias(name, training.lora_bias)
        if parameter.is_floating_point():  # quantised weights are integers
            parameter.requires_grad_(learns[part] or is_new_token or is_bias)
        size = getattr(parameter, "ds_numel", parameter.numel())  # ZeRO-3 leaves 0 elements on each rank
        counts[part][0] += size
        counts[part][1] += size if parameter.requires_grad else 0
    return counts


def _is_chosen_bias(name: str, lora_bias: str) -> bool:
    """Tell whether --lora_bias lets one of the language model's biases learn.

    Layers with an adapter keep their own bias under `base_layer.`.
    """
    is_bias = name.endswith(".bias") and part_of(name) in (LANGUAGE_MODEL, LANGUAGE_HEAD)
    return is_bias and (lora_bias == "all" or (lora_bias == "lora_only" and ".base_layer." in name))
