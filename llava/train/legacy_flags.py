"""Flags of older LLaVA and transformers command lines: renamed, without effect any more, or not available."""

import difflib
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

logger = logging.getLogger(__name__)

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",  # a float below 1 is a share of all steps
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
}

WITHOUT_EFFECT = {
    "double_quant": "there is no quantised training",
    "fp16_backend": "precision is chosen with --bf16 or --fp16 alone",
    "half_precision_backend": "precision is chosen with --bf16 or --fp16 alone",
    "include_inputs_for_metrics": "training computes no evaluation metrics",
    "lazy_preprocess": "images are always read when they are needed",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR instead",
    "lora_weight_path": "it was never read",
    "mpt_attn_impl": "MPT is not supported",
    "overwrite_output_dir": "nothing is overwritten; a run goes on from its last complete checkpoint",
    "quant_type": "there is no quantised training",
    "save_safetensors": "weights are always saved as safetensors",
    "lora_r": "there is no LoRA training",
    "lora_alpha": "there is no LoRA training",
    "lora_dropout": "there is no LoRA training",
    "lora_bias": "there is no LoRA training",
}

ONLY_VALUE = {
    "lora_enable": ("false", "LoRA training is not available; leave the flag out to train all weights"),
    "bits": ("16", "quantised training is not available; leave the flag out"),
    "group_by_length": ("false", "use --group_by_modality_length True"),
}
"""Flags of which one value is accepted and does nothing, and what to do instead of any other."""


class Flag(NamedTuple):
    """One flag of a command line and the words that follow it."""

    name: str
    words: tuple[str, ...]


def split_flags(argv: Sequence[str]) -> list[Flag]:
    """Cut a command line into flags; `--model-path`, `--model_path` and `--model_path=x` are spelt alike."""
    flags: list[Flag] = []
    for word in argv:
        if word == "-h" or word.startswith("--"):
            name, has_value, value = word.lstrip("-").partition("=")
            name = "help" if name == "h" else name.replace("-", "_")
            flags.append(Flag(name, (value,) if has_value else ()))
        elif not flags:
            raise ValueError(
                f"{word!r} follows no flag: every value needs its flag, e.g. --output_dir {word}"
            )
        else:
            flags[-1] = Flag(flags[-1].name, (*flags[-1].words, word))
    return flags


def join_flags(flags: Iterable[Flag]) -> list[str]:
    """Turn flags back into the words of a command line."""
    return [word for flag in flags for word in (f"--{flag.name}", *flag.words)]


def translate(flags: Iterable[Flag]) -> list[Flag]:
    """Replace flags of older versions by today's, with one notice for each that changes or does nothing."""
    translated = []
    for flag in flags:
        if flag.name in RENAMED:
            logger.warning("--%s is now called --%s", flag.name, RENAMED[flag.name])
            translated.append(Flag(RENAMED[flag.name], flag.words))
        elif flag.name in WITHOUT_EFFECT:
            logger.warning("--%s has no effect: %s", flag.name, WITHOUT_EFFECT[flag.name])
        elif flag.name in ONLY_VALUE:
            _require_only_value(flag)
        else:
            translated.append(flag)
    return translated


def require_known(flags: Iterable[Flag], known: Iterable[str]) -> None:
    """Refuse flags that nobody reads, and name the nearest that is read."""
    known = sorted(known)
    problems = []
    for flag in flags:
        if flag.name not in known:
            near = difflib.get_close_matches(flag.name, known, n=1)
            problems.append(f"unknown flag --{flag.name}" + (f", did you mean --{near[0]}?" if near else ""))
    if problems:
        raise ValueError("; ".join(problems) + " (--help lists all flags)")


def _require_only_value(flag: Flag) -> None:
    accepted, advice = ONLY_VALUE[flag.name]
    if [word.lower() for word in flag.words] != [accepted]:
        raise ValueError(f"--{flag.name} {' '.join(flag.words)}: {advice}")
