"""The command line of `python -m llava.eval`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava.model.budgets import COUNTINGS

DTYPES = ("auto", "float32", "float16", "bfloat16")


def flag(default: Any, text: str) -> Any:
    """Declare a flag with its default and its help text."""
    return field(default=default, metadata={"help": text})


@dataclass(kw_only=True)
class ModelArguments:
    """Which checkpoint, and how it is run. Flags may be spelled with hyphens too."""

    model_path: str = field(metadata={"help": "checkpoint directory or hub id"})
    model_base: str | None = flag(None, "base model of a checkpoint that holds only a projector")
    conv_mode: str = flag("auto", "conversation template; auto: the checkpoint's, else vicuna_v1")
    data_root: str = flag("playground/data/eval", "folder with one folder per benchmark")
    batch_size: int = flag(1, "questions answered at once on each rank")
    num_workers: int = flag(4, "processes that decode images on each rank; 0: none")
    device: str = flag("auto", "auto: this rank's GPU where there is one, else the CPU")
    dtype: str = flag("auto", "auto, float32, float16 or bfloat16; auto: float16 on a GPU, float32 on a CPU")

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the flag, the rule and the value."""
        if self.batch_size < 1:
            raise ValueError(f"--batch_size must be 1 or more, got {self.batch_size}")
        if self.num_workers < 0:
            raise ValueError(f"--num_workers must not be negative, got {self.num_workers}")
        if self.dtype not in DTYPES:
            raise ValueError(f"--dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(kw_only=True)
class EvalArguments(ModelArguments):
    """What is evaluated, on what, and how."""

    benchmarks: list[str] = field(metadata={"help": "names of the benchmarks, e.g. gqa pope textvqa"})
    output_dir: str = field(metadata={"help": "folder of this run; each benchmark gets a folder in it"})
    reduction: list[str] | None = field(
        default=None, metadata={"help": "METHOD [FIELD=VALUE ...]; unset: what the checkpoint says"}
    )
    budget: float | None = flag(
        None,
        "mean share of the dense FLOPs, e.g. 0.4; needs python -m llava.eval.calibrate (docs/budgets.md)",
    )
    counting: str = flag("visual", "what the budget counts: visual (Eq. 8, visual tokens only) or full")
    max_samples: int | None = field(
        default=None,
        metadata={
            "help": "only the first N questions (it becomes part of the label); --limit is the same",
            "aliases": ["--limit"],
        },
    )
    split: str | None = flag(None, "vqav2, vizwiz: val or test; unset: what is in the data folder")
    max_new_tokens: int | None = flag(None, "longest answer; unset: the benchmark's own")
    temperature: float = flag(0.0, "0: greedy; above: sampled (it becomes part of the label)")
    top_p: float | None = flag(None, "nucleus of a sampled answer")
    num_beams: int = flag(1, "beams (more than one becomes part of the label)")

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the flag, the rule and the value."""
        super().__post_init__()
        for name in ("max_samples", "max_new_tokens", "num_beams"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"--temperature must be a finite number of 0 or more, got {self.temperature}")
        if self.counting not in COUNTINGS:
            raise ValueError(f"--counting must be one of {', '.join(COUNTINGS)}, got {self.counting!r}")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ValueError(f"--budget is a share of the dense FLOPs above 0 and up to 1, got {self.budget}")
        repeated = sorted({name for name in self.benchmarks if self.benchmarks.count(name) > 1})
        if repeated:
            raise ValueError(f"--benchmarks names {', '.join(repeated)} more than once")

    def generation(self, max_new_tokens: int) -> dict[str, Any]:
        """Return the keywords for `generate`: greedy unless asked otherwise."""
        budget = {} if self.budget is None else {"budget": self.budget, "counting": self.counting}
        length = self.max_new_tokens or max_new_tokens
        return decoding(length, self.temperature, self.top_p, self.num_beams) | budget

    def label_suffix(self) -> str:
        """Return what these flags add to every protocol label."""
        marks = {
            f"first_{self.max_samples}": self.max_samples is not None,
            "sampled": self.temperature > 0,
            f"beams_{self.num_beams}": self.num_beams > 1,
        }
        return "".join(f"+{mark}" for mark, applies in marks.items() if applies)


def decoding(max_new_tokens: int, temperature: float, top_p: float | None, num_beams: int) -> dict[str, Any]:
    """Return the keywords for `generate`; those of sampling only where the temperature is above 0."""
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p}
    given = {name: value for name, value in sampling.items() if value is not None}
    return {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "use_cache": True,
        **(given if temperature > 0 else {"do_sample": False}),
    }


def parse(words: Sequence[str] | None = None) -> EvalArguments:
    """Parse a command line; `None` reads this process's."""
    parser = HfArgumentParser(DataClassType(EvalArguments), prog="python -m llava.eval", description=__doc__)
    parsed, *_ = parser.parse_args_into_dataclasses(list(words) if words is not None else None)
    return parsed
