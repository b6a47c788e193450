"""Ranges of numeric flags that transformers and torch take as they are, or refuse hours later."""

import math

from llava.train.arguments import TrainingArguments

AT_LEAST = {
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "model_max_length": 1,
    "learning_rate": 0,
    "mm_projector_lr": 0,  # below zero it would climb
    "weight_decay": 0,
    "max_grad_norm": 0,  # 0 doesn't clip
    "estimate_gpus": 0,
}
"""Smallest value of a flag, where it is set."""
BITS = (4, 8, 16)
"""Of a weight; below 16 bitsandbytes quantises."""
AT_LEAST_WITH_LORA = {"lora_r": 1, "lora_alpha": 1}


def check_numbers(training: TrainingArguments) -> None:
    """Raise `ValueError` for the first number that a run can't work with, naming flag, rule and value."""
    limits = AT_LEAST | (AT_LEAST_WITH_LORA if training.lora_enable else {})
    for name, least in limits.items():
        value = getattr(training, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"--{name} must be at least {least}, got {value}")
    if training.bits not in BITS:
        raise ValueError(f"--bits must be one of {', '.join(map(str, BITS))}, got {training.bits}")
    if training.max_steps <= 0 and training.num_train_epochs <= 0:
        raise ValueError(
            f"--num_train_epochs {training.num_train_epochs:g} leaves nothing to train; it must be above 0, "
            "or --max_steps must say how long the run is"
        )
    if training.save_strategy == "steps" and training.save_steps <= 0:
        raise ValueError(
            f"--save_steps must be above 0, got {training.save_steps:g}; --save_strategy no saves the result "
            "only"
        )
