"""The command line of `python -m llava.bench compare`."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava.bench.arguments import CommonArguments, flag
from llava.bench.compare.checkpoint import read_shape
from llava.bench.compare.settings import KNOWN
from llava.bench.shapes import PRESETS, SIZES, Shape
from llava.model.reduction import METHODS, PROJECTORS, did_you_mean

BATCHES = (1, 8)
"""Batches that are timed where --batch is unset."""


@dataclass
class CompareArguments(CommonArguments):
    """Which methods are timed side by side, and how much each may keep."""

    methods: list[str] = field(
        default_factory=lambda: [*METHODS, *PROJECTORS],
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
    model_path: str | None = flag(
        None, "a plain LLaVA checkpoint, or one with a reduction; unset: random weights"
    )
    render: str | None = flag(
        None, "measure nothing: check this compare.json, and write its .md and .png anew"
    )

    def __post_init__(self) -> None:
        """Refuse what can't work; every message names the flag, the rule and the value."""
        super().__post_init__()
        self.refuse_below_one("answers", self.answers)
        if not self.answers:
            raise ValueError("--answers needs at least one length")
        self._check_methods()
        self._check_budgets()
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"--tolerance must be from 0 to below 1, got {self.tolerance}")
        if self.clock == "cpu" and self.torch_device.type == "cuda":
            raise ValueError("--clock cpu reads the processor, but the work is on a GPU; use --clock wall")
        given = [f"--{name}" for name in SIZES if name != "text" and getattr(self, name) is not None]
        given += ["--preset"] if self.preset != "default" else []
        if self.model_path is not None and given:
            raise ValueError(
                f"--model_path brings its sizes along, but {', '.join(given)} was given, too; leave one out"
            )

    def _check_methods(self) -> None:
        """Refuse methods that aren't there, settings of dense, and rows that would have one name."""
        for method in self.methods:
            name = method.split()[0] if method.split() else ""
            if name not in KNOWN:
                raise ValueError(
                    f"--methods: unknown method {name!r}{did_you_mean(name, KNOWN)}; "
                    f"known: {', '.join(KNOWN)}"
                )
            if name == "dense" and method.split()[1:]:
                raise ValueError(f"--methods {method!r}: dense has no settings; leave them out")
        if repeated := _repeated(" ".join(method.split()) for method in self.methods):
            raise ValueError(f"--methods names {repeated!r} twice")

    def _check_budgets(self) -> None:
        """Refuse what is no share, and budgets whose rows would have one name."""
        for budget in self.budgets:
            if not (math.isfinite(budget) and 0 < budget <= 1):
                raise ValueError(
                    f"--budgets are shares of the dense visual FLOPs, above 0 and up to 1, got {budget}"
                )
        if repeated := _repeated(f"{budget:g}" for budget in self.budgets):
            raise ValueError(f"--budgets names {repeated} twice, to the six digits that rows are named with")

    @property
    def batches(self) -> Sequence[int]:
        """Samples per batch, case after case."""
        return self.batch or BATCHES

    @cached_property
    def shape(self) -> Shape:  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
        """Sizes of the model: the checkpoint's, or the preset's and what was given beside it."""
        if self.model_path is None:
            return super().shape
        return read_shape(self.model_path, PRESETS[self.preset].text if self.text is None else self.text)


def _repeated(names: Iterable[str]) -> str | None:
    """Return the first name that is there more than once; None where none is."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def parse(words: Sequence[str]) -> CompareArguments:
    """Parse the flags behind `compare`."""
    parser = HfArgumentParser(
        DataClassType(CompareArguments), prog="python -m llava.bench compare", description=__doc__
    )
    (parsed,) = parser.parse_args_into_dataclasses(list(words))
    return parsed
