"""The command line of `python -m llava.bench`: what all modes share; flags of prefill, decode, train."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava.bench.shapes import PRESETS, SIZES, Shape
from llava.bench.timing import CLOCKS

MODES = {"prefill": (1, 4, 8), "decode": (1, 8), "train": (8,)}
"""What can be timed, and the batches it is timed at where --batch is unset."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def flag(default: Any, text: str) -> Any:
    """Declare a flag with its default and its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class CommonArguments:
    """Which model is timed, how often and where. Flags may be spelled with hyphens too."""

    preset: str = flag("default", f"sizes of the model: {', '.join(PRESETS)}; the flags below override them")
    hidden_size: int | None = flag(None, "width of the decoder")
    intermediate_size: int | None = flag(None, "width of its feed-forward layers")
    num_layers: int | None = flag(None, "decoder layers; DPEs stand after every quarter of them")
    num_heads: int | None = flag(None, "attention heads")
    num_kv_heads: int | None = flag(None, "key/value heads")
    vocab_size: int | None = flag(None, "rows of embedding and head")
    grid: int | None = flag(None, "rows and columns of an image's visual tokens")
    text: int | None = flag(None, "text tokens of a prompt; in training with its answer")
    tower_width: int | None = flag(None, "width of the vision tower")
    tower_layers: int | None = flag(None, "layers of the vision tower")
    batch: list[int] | None = field(
        default=None, metadata={"help": "samples per batch; several are timed one after another"}
    )
    rounds: int = flag(10, "times everything is timed; medians are reported")
    warmup: int = flag(2, "untimed runs of everything before that")
    clock: str = flag("wall", "clock of the reported seconds: wall, or cpu where other jobs share the cores")
    threads: int | None = flag(None, "threads of torch on the CPU; unset: torch's own choice")
    device: str = flag("auto", "auto: the first GPU where there is one, else the CPU")
    dtype: str = flag("auto", "auto, float32, float16 or bfloat16; auto: bfloat16 on a GPU, else float32")
    seed: int = flag(0, "of weights, inputs, mixed routes and the order of runs")
    output: str = flag("results/bench", "folder for MODE.json, MODE.md and MODE.png")

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the flag, the rule and the value."""
        if self.preset not in PRESETS:
            raise ValueError(f"--preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        if self.dtype not in ("auto", *DTYPES):
            raise ValueError(f"--dtype must be auto or one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.clock not in CLOCKS:
            raise ValueError(f"--clock must be one of {', '.join(CLOCKS)}, got {self.clock!r}")
        _ = self.torch_device  # refused in the first second
        self.refuse_below_one("rounds", [self.rounds])
        self.refuse_below_one("batch", self.batch or [])
        self.refuse_below_one("threads", [] if self.threads is None else [self.threads])
        if self.warmup < 0:
            raise ValueError(f"--warmup must be 0 or more, got {self.warmup}")

    @staticmethod
    def refuse_below_one(name: str, values: Sequence[int]) -> None:
        """Refuse, with a ValueError, counts of a flag that aren't positive."""
        if min(values, default=1) < 1:
            raise ValueError(f"--{name} must be 1 or more, got {min(values)}")

    @property
    def shape(self) -> Shape:
        """Sizes of the model: the preset's, and what was given beside it."""
        return PRESETS[self.preset].with_sizes({name: getattr(self, name) for name in SIZES})

    @property
    def torch_device(self) -> torch.device:
        """Where everything runs; ValueError for a device that isn't there."""
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        name = automatic if self.device == "auto" else self.device
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}") from error
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"--device {name}: this machine shows {torch.cuda.device_count()} CUDA devices")
        return device

    @property
    def torch_dtype(self) -> torch.dtype:
        """Type of weights and activations."""
        automatic = "bfloat16" if self.torch_device.type == "cuda" else "float32"
        return DTYPES[automatic if self.dtype == "auto" else self.dtype]


@dataclass
class BenchArguments(CommonArguments):
    """What of prefill, decoding or training is timed."""

    routes: list[str] = field(
        default_factory=lambda: ["1x2,1x2,1x2", "2x2,1x2,1x1", "2x2,2x2,2x2"],
        metadata={"help": "uniform routes, one kernel per DPE"},
    )
    variants: list[str] | None = field(
        default=None,
        metadata={"help": "only these kinds: transformers, identity, uniform, mixed (dense always runs)"},
    )
    answers: list[int] = field(
        default_factory=lambda: [3, 128],
        metadata={"help": "decode: tokens of an answer; several are timed one after another"},
    )
    supervised: int = flag(20, "train: tokens at the end of the text that are supervised")
    tower: bool = flag(False, "include vision tower and projector in the clock (not in train)")
    zero: int = flag(0, "train: ZeRO stage 2 or 3 of DeepSpeed; 0 is one process without it")
    ranks: int = flag(1, "train with --zero: processes of this machine, each with --batch samples and a GPU")

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the flag, the rule and the value."""
        super().__post_init__()
        self.refuse_below_one("answers", self.answers)
        self.refuse_below_one("ranks", [self.ranks])
        if not 0 < self.supervised < self.shape.text - self.shape.text // 2:
            raise ValueError(
                f"--supervised must be positive and smaller than the text behind the image, "
                f"{self.shape.text - self.shape.text // 2} of {self.shape.text} tokens, got {self.supervised}"
            )
        self._check_ranks()
        if not self.answers:
            raise ValueError("--answers needs at least one length")
        kinds = ("transformers", "dense", "identity", "uniform", "mixed")
        if unknown := sorted(set(self.variants or ()) - set(kinds)):
            raise ValueError(f"--variants are {', '.join(kinds)}, got {', '.join(unknown)}")

    def _check_ranks(self) -> None:
        if self.zero not in (0, 2, 3):
            raise ValueError(f"--zero must be 0, 2 or 3, got {self.zero}")
        if self.ranks > 1 and not self.zero:
            raise ValueError(f"--ranks {self.ranks} needs --zero 2 or 3: without ZeRO one process is timed")
        if self.zero and self.torch_dtype is torch.float16:
            raise ValueError(
                "--zero takes float32 or bfloat16: float16 needs a loss scale, which isn't timed"
            )

    def wants(self, kind: str) -> bool:
        """Whether variants of this kind are timed."""
        return self.variants is None or kind in self.variants or kind == "dense"


def parse(words: Sequence[str] | None = None) -> tuple[str, BenchArguments]:
    """Parse a command line, MODE and flags; `None` reads this process's."""
    parser = HfArgumentParser(
        DataClassType(BenchArguments), prog="python -m llava.bench", description=__doc__
    )
    parser.add_argument(
        "mode",
        choices=MODES,
        help="what is timed; compare, with flags of its own, is described by `compare --help`",
    )
    parsed, rest, *_ = parser.parse_args_into_dataclasses(list(words) if words is not None else None)
    if parsed.zero and rest.mode != "train":
        raise ValueError(f"--zero {parsed.zero} is for train: {rest.mode} has no gradients to split")
    return rest.mode, parsed
