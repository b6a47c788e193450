"""The models that are timed side by side, all over one set of weights, and the budgets none could be set to.

Shapes: B samples, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from llava.bench.compare.arguments import CompareArguments
from llava.bench.compare.budgets import Choice, choices, nearest, read_choice
from llava.bench.compare.checkpoint import Maker, checkpoint_maker
from llava.bench.compare.settings import DENSE, Setting
from llava.bench.inputs import Batch, pixels_of
from llava.bench.models import build_ours, build_reference
from llava.bench.variants import Routes, Variant
from llava.model.llava_llama import LlavaLlamaForCausalLM


@dataclass(frozen=True)
class Contender:
    """One method with the settings of one budget, in a model of its own."""

    name: str
    """Unique in a run: dense, METHOD@BUDGET, or the settings that were given."""
    setting: Setting
    budget: float | None
    """None for dense, and where the settings were given."""
    share: float
    """Of the dense visual FLOPs, computed beforehand."""
    model: LlavaLlamaForCausalLM

    @property
    def variant(self) -> Variant:
        """The same in the words of the other modes: a uniform route, or none."""
        kind = "uniform" if self.setting.route else "dense"
        return Variant(self.name, kind, self.model, self.setting.route or None)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Give ids and pixels, these at the size that the model's tower reads."""
        return {
            "input_ids": batch.ours["input_ids"],
            "images": pixels_of(self.model, batch.ours["images"]),
        }

    def teach(self, batch: Batch) -> Routes | None:
        """Make the routers choose the contender's route for a batch; None where there are no routers."""
        return self.variant.teach(batch, seed=0)


class Missed(NamedTuple):
    """A budget that a method can't be set to, or that it missed on a batch."""

    method: str
    budget: float
    nearest: float
    """The share of the dense visual FLOPs that comes nearest."""
    settings: list[str]
    """The settings that give it."""
    batch: int | None = None
    """The batch it was seen on; None where it was computed beforehand."""


class Wanted(NamedTuple):
    """One contender before its model is built."""

    name: str
    budget: float | None
    choice: Choice


def wanted(arguments: CompareArguments) -> tuple[list[Wanted], list[Missed]]:
    """Set every method to every budget: what is timed, and what can't be.

    Raises:
        ValueError: settings that a method doesn't have, or that don't fit the decoder.
    """
    shape = arguments.shape
    found, missed = [Wanted("dense", None, Choice(DENSE, 1.0))], []
    for text in arguments.methods:
        if text == "dense":
            continue
        if len(text.split()) > 1:
            found.append(Wanted(text, None, read_choice(text, shape)))
            continue
        every = choices(text, shape)
        for budget in arguments.budgets:
            best = nearest(every, budget)
            if is_met(best.share, budget, arguments.tolerance):
                found.append(Wanted(f"{text}@{budget:g}", budget, best))
            else:
                missed.append(Missed(text, budget, best.share, list(best.setting.words)))
    return found, missed


def is_met(share: float, budget: float, tolerance: float) -> bool:
    """Tell whether a share counts as a budget."""
    return abs(share - budget) <= tolerance + 1e-9


def build_contenders(found: Sequence[Wanted], arguments: CompareArguments) -> Iterator[Contender]:
    """Build the models of what `wanted` found; tower and decoder hold the same tensors in all of them."""
    make = _maker(arguments)
    torch.manual_seed(arguments.seed)  # of projectors and routers
    for name, budget, (setting, share) in found:
        model = make(setting.saved_reduction, setting.saved_projector)
        yield Contender(name, setting, budget, share, model)


def _maker(arguments: CompareArguments) -> Maker:
    """Give what makes the models: over a checkpoint's tensors, or over random ones."""
    device, dtype, shape = arguments.torch_device, arguments.torch_dtype, arguments.shape
    if arguments.model_path is not None:
        return checkpoint_maker(arguments.model_path, device, dtype)
    reference = build_reference(shape, device, dtype, arguments.seed)
    return lambda reduction, projector: build_ours(
        reference, shape, reduction=reduction, projector=projector, has_tower=True
    )
