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
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "torchdynamo": "torch_compile_backend",
}

WITHOUT_EFFECT = {
    "fp16_backend": "precision is chosen with --bf16 or --fp16 alone",
    "fp16_opt_level": "precision is chosen with --bf16 or --fp16 alone",
    "half_precision_backend": "precision is chosen with --bf16 or --fp16 alone",
    "include_inputs_for_metrics": "training computes no evaluation metrics",
    "include_tokens_per_second": "the speed is logged as samples and steps per second",
    "jit_mode_eval": "training evaluates nothing",
    "lazy_preprocess": "images are always read when they are needed",
    "logging_dir": "set the environment variable TENSORBOARD_LOGGING_DIR instead",
    "lora_weight_path": "LLaVA never read it; a run goes on from its last complete checkpoint by itself",
    "mp_parameters": "SageMaker's model parallelism is not supported",
    "mpt_attn_impl": "MPT is not supported",
    "overwrite_output_dir": "nothing is overwritten; a run goes on from its last complete checkpoint",
    "ray_scope": "there is no search for hyperparameters",
    "save_safetensors": "weights are always saved as safetensors",
    "tpu_metrics_debug": "TPUs are not supported",
    "tpu_num_cores": "TPUs are not supported",
    "use_ipex": "torch's own CPU kernels are used",
    "use_legacy_prediction_loop": "training evaluates nothing",
    "use_mps_device": "the device is found without it",
}

ONLY_VALUE = {
    "adafactor": ("false", "use --optim adafactor"),
    "dispatch_batches": ("none", "use --accelerator_config '{\"dispatch_batches\": true}'"),
    "fsdp_min_num_params": ("0", "use --fsdp_config '{\"min_num_params\": ...}'"),
    "fsdp_transformer_layer_cls_to_wrap": ("none", "use --fsdp_config"),
    "group_by_length": ("false", "use --group_by_modality_length True"),
    "past_index": ("-1", "a decoder's past states aren't carried from batch to batch; leave the flag out"),
    "push_to_hub_organization": ("none", "use --hub_model_id organization/name"),
    "split_batches": ("false", "use --accelerator_config '{\"split_batches\": true}'"),
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
    """Replace flags of older versions by today's, with one notice for each that changes or does nothing.

    Raises:
        ValueError: an old and a new spelling of one flag with different values, or a value that is gone.
    """
    translated = []
    flags = _with_one_warmup(list(flags))
    _refuse_contradictions(flags)
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


def _with_one_warmup(flags: list[Flag]) -> list[Flag]:
    """Keep one of --warmup_ratio and --warmup_steps; of both, steps won in transformers 4 unless it was 0.

    Raises:
        ValueError: a ratio that would be read as a number of steps.
    """
    last = {flag.name: _number(flag.words) for flag in flags}
    if last.get("warmup_ratio", 0) >= 1:
        raise ValueError("--warmup_ratio of 1 or more would be a number of steps: give it as --warmup_steps")
    if {"warmup_ratio", "warmup_steps"} <= last.keys():
        dropped = "warmup_ratio" if last["warmup_steps"] > 0 else "warmup_steps"
        flags = [flag for flag in flags if flag.name != dropped]
    return flags


def _refuse_contradictions(flags: list[Flag]) -> None:
    """Refuse a flag that is given under its old and its new name with different values."""
    last = {flag.name: flag.words for flag in flags}
    for old, new in RENAMED.items():
        if old in last and new in last and _value(last[old]) != _value(last[new]):
            raise ValueError(
                f"--{old} {' '.join(last[old])} contradicts --{new} {' '.join(last[new])}: they are the old "
                f"and the new name of one flag; give --{new} alone"
            )


def _value(words: Sequence[str]) -> tuple[str, ...]:
    """Return words so that equal values are equal: `True` is `true`, and so is a flag without a value."""
    switches = {"True": "true", "False": "false"}
    return tuple(switches.get(word, word) for word in words) or ("true",)


def _number(words: Sequence[str]) -> float:
    """Read a value; what is none is left to the parser, which names the flag."""
    try:
        return float(words[-1])
    except (IndexError, ValueError):
        return 0.0


def _require_only_value(flag: Flag) -> None:
    accepted, advice = ONLY_VALUE[flag.name]
    if [word.lower() for word in flag.words] != [accepted]:
        raise ValueError(f"--{flag.name} {' '.join(flag.words)}: {advice}")
