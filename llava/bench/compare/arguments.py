"""The command line of `python -m llava.bench compare`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava.bench.arguments import CommonArguments, flag
from llava.bench.compare.settings import KNOWN
from llava.model.reduction import did_you_mean

BATCHES = (1, 8)
"""Batches that are timed where --batch is unset."""


@dataclass
class CompareArguments(CommonArguments):
    """Which methods are timed side by side, and how much each may keep."""

    methods: list[str] = field(
        default_factory=lambda: [
            "dpn",
            "static",
            "fastv",
            "pyramid_drop",
            "random",
            "truncate",
            "average_pool",
            "token_packer",
        ],
        metadata={
            "help": "names, at every budget, or settings in quotes, as they are: 'fastv layer=3 ratio=0.5'; "
            "dense always runs"
        },
    )
    budgets: list[float] = field(
        default_factory=lambda: [0.25, 0.4, 0.5],
        metadata={"help": "shares of the dense visual FLOPs (Eq. 8) that every method is set to"},
    )
    tolerance: float = flag(0.03, "how far a share may lie from its budget; what is farther isn't timed")
    answers: list[int] = field(
        default_factory=lambda: [1, 32],
        metadata={"help": "tokens of an answer; several are timed one after another"},
    )
    accuracy: list[str] = field(
        default_factory=list,
        metadata={"help": "METHOD=FOLDER: results of llava.eval, for the plot of accuracy against FLOPs"},
    )

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the flag, the rule and the value."""
        super().__post_init__()
        self.refuse_below_one("answers", self.answers)
        if not self.answers:
            raise ValueError("--answers needs at least one length")
        for method in self.methods:
            name = method.split()[0] if method.split() else ""
            if name not in KNOWN:
                raise ValueError(
                    f"--methods: unknown method {name!r}{did_you_mean(name, KNOWN)}; known: {', '.join(KNOWN)}"
                )
        if repeated := {method for method in self.methods if self.methods.count(method) > 1}:
            raise ValueError(f"--methods names {sorted(repeated)[0]!r} twice")
        for budget in self.budgets:
            if not (math.isfinite(budget) and 0 < budget <= 1):
                raise ValueError(
                    f"--budgets are shares of the dense visual FLOPs, above 0 and up to 1, got {budget}"
                )
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"--tolerance must be from 0 to below 1, got {self.tolerance}")
        if self.clock == "cpu" and self.torch_device.type == "cuda":
            raise ValueError("--clock cpu reads the processor, but the work is on a GPU; use --clock wall")
        for word in self.accuracy:
            self._check_accuracy(word)

    def _check_accuracy(self, word: str) -> None:
        method, _, folder = word.partition("=")
        names = {"dense", *(given.split()[0] for given in self.methods)}
        if method not in names or not folder:
            raise ValueError(
                f"--accuracy takes METHOD=FOLDER with a method that is compared, got {word!r}; compared: "
                f"{', '.join(sorted(names))}"
            )

    @property
    def batches(self) -> Sequence[int]:
        """Samples per batch, case after case."""
        return self.batch or BATCHES

    @property
    def results(self) -> list[tuple[str, Path]]:
        """Method and folder of every --accuracy."""
        return [(word.partition("=")[0], Path(word.partition("=")[2])) for word in self.accuracy]


def parse(words: Sequence[str]) -> CompareArguments:
    """Parse the flags behind `compare`."""
    parser = HfArgumentParser(
        DataClassType(CompareArguments), prog="python -m llava.bench compare", description=__doc__
    )
    (parsed,) = parser.parse_args_into_dataclasses(list(words))
    return parsed
