"""The models that are timed side by side, all over one set of weights, and the budgets none could be set to.

Shapes: B samples, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llava.bench.compare.arguments import CompareArguments
from llava.bench.compare.budgets import Choice, choices, nearest, read_choice
from llava.bench.compare.settings import DENSE, Setting
from llava.bench.inputs import Batch, pixels_of
from llava.bench.models import build_ours, build_reference, teach_routes
from llava.bench.variants import Routes, Variant
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.model.reduction import DpnConfig, expert_indices


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
        """Make the routers choose the contender's route for a batch; None where there are no routers.

        Raises:
            ValueError: they can't be made to.
        """
        if not self.setting.route:
            return None
        assert isinstance(self.setting.reduction, DpnConfig)
        routes = expert_indices([self.setting.route] * batch.size, self.setting.reduction.kernels).tolist()
        teach_routes(self.model, self.inputs(batch), routes)
        return routes


@dataclass(frozen=True)
class Missed:
    """A budget that a method can't be set to."""

    method: str
    budget: float
    nearest: float
    """The share of the dense visual FLOPs that comes nearest."""
    words: tuple[str, ...]
    """The settings that do."""


def wanted(arguments: CompareArguments) -> tuple[list[tuple[str, float | None, Choice]], list[Missed]]:
    """Set every method to every budget: (name, budget, choice) of what is timed, and what can't be.

    Raises:
        ValueError: settings that a method doesn't have, or that don't fit the decoder.
    """
    shape = arguments.shape
    found: list[tuple[str, float | None, Choice]] = [("dense", None, Choice(DENSE, 1.0))]
    missed = []
    for text in arguments.methods:
        if text == "dense":
            continue
        if len(text.split()) > 1:
            found.append((text, None, read_choice(text, shape)))
            continue
        every = choices(text, shape)
        for budget in arguments.budgets:
            best = nearest(every, budget)
            if is_met(best.share, budget, arguments.tolerance):
                found.append((f"{text}@{budget:g}", budget, best))
            else:
                missed.append(Missed(text, budget, best.share, best.setting.words))
    return found, missed


def is_met(share: float, budget: float, tolerance: float) -> bool:
    """Tell whether a share counts as a budget."""
    return abs(share - budget) <= tolerance + 1e-9


def build_contenders(
    found: Sequence[tuple[str, float | None, Choice]], arguments: CompareArguments
) -> Iterator[Contender]:
    """Build the models of what `wanted` found; tower and decoder hold the same tensors in all of them."""
    shape = arguments.shape
    reference = build_reference(shape, arguments.torch_device, arguments.torch_dtype, arguments.seed)
    torch.manual_seed(arguments.seed)  # of projectors and routers
    for name, budget, choice in found:
        setting = choice.setting
        model = build_ours(
            reference,
            shape,
            reduction=setting.saved_reduction,
            projector=setting.saved_projector,
            has_tower=True,
        )
        yield Contender(name, setting, budget, choice.share, model)
