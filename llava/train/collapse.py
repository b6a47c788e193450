"""An alarm for routers that have stopped choosing.

A router has collapsed when, over the last 256 samples that its DPE routed (or more, a line of the log at a
time), one expert took 98 % of them or more. It has recovered when no expert takes more than 90 % of as many
samples. Only changes are said: a collapse, another expert that takes all, a recovery. So a router at the
border is reported once, and not in every line. Probabilities that aren't finite are reported at once.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llava.model.reduction import DpnConfig

logger = logging.getLogger(__name__)

WINDOW = 256
"""Routed samples that a judgement needs."""
COLLAPSED, RECOVERED = 0.98, 0.90
"""Share of one expert at and above which a router has collapsed, and up to which it is well again."""
CHOOSING = ("sample", "gumbel", "argmax")
"""Values of `train_choice` with which the router decides; forced and uniform routes raise no alarm."""


class Collapse(NamedTuple):
    """A collapse that has been reported and is still there."""

    expert: int
    since: int
    """The first step of the samples that showed it."""


class Window(NamedTuple):
    """Choices of one DPE since its last judgement."""

    first_step: int | None
    counts: list[float]
    """Per expert."""


class CollapseAlarm:
    """Judges every DPE by its choices since the last judgement, and says what has changed."""

    def __init__(self, config: DpnConfig) -> None:
        self.kernels = [f"{rows}x{columns}" for rows, columns in config.kernels]
        self.is_watching = config.train_choice in CHOOSING
        self.wanted = _wanted(config)
        self.last_step = 0
        self.windows = {layer: self._empty() for layer in config.layers}
        self.collapsed: dict[int, Collapse] = {}
        self.broken: set[int] = set()

    def see(
        self, step: int, counts: Mapping[int, Sequence[float]], entropies: Mapping[int, float | None]
    ) -> None:
        """Judge the choices up to a step that have been made since the last call.

        Args:
            step: the last one that they come from.
            counts: choices per expert, by the layer that a DPE stands in front of.
            entropies: mean entropy (nats) of its router, where it routed.
        """
        if not self.is_watching:
            return
        for layer, new in counts.items():
            entropy = entropies.get(layer)
            if entropy is not None and not math.isfinite(entropy):
                self._report_broken(layer)
            first_step, before = self.windows[layer]
            window = Window(
                self.last_step + 1 if first_step is None else first_step,
                [old + more for old, more in zip(before, new, strict=True)],
            )
            is_enough = sum(window.counts) >= WINDOW
            if is_enough:
                self._judge(layer, window, step, entropy)
            self.windows[layer] = self._empty() if is_enough else window
        self.last_step = step

    def _judge(self, layer: int, window: Window, step: int, entropy: float | None) -> None:
        total = sum(window.counts)
        share, expert = max((count / total, index) for index, count in enumerate(window.counts))
        before = self.collapsed.get(layer)
        if share >= COLLAPSED and (before is None or before.expert != expert):
            self.collapsed[layer] = Collapse(expert, window.first_step or 0)
            self._report_collapse(layer, window, step, entropy)
        elif share <= RECOVERED and before is not None:
            del self.collapsed[layer]
            logger.warning(
                "%s chooses again: from step %d to %d no expert took more than %.1f %% of %d samples (%s had "
                "taken nearly all since step %d)",
                self._name(layer),
                window.first_step,
                step,
                100 * share,
                total,
                self.kernels[before.expert],
                before.since,
            )

    def _report_collapse(self, layer: int, window: Window, step: int, entropy: float | None) -> None:
        expert, since = self.collapsed[layer]
        total = sum(window.counts)
        logger.warning(
            "ALARM: %s has collapsed: from step %d to %d it gave %s to %.1f %% of %d samples (entropy %.3f "
            "of %.3f nats). Training goes on. If %s asks for it, this is no failure: watch share_%s@%d, "
            "visual_flops and language_loss. docs/training.md says when to act and what may help",
            self._name(layer),
            since,
            step,
            self.kernels[expert],
            100 * window.counts[expert] / total,
            total,
            math.nan if entropy is None else entropy,
            math.log(len(self.kernels)),
            self.wanted,
            self.kernels[expert],
            layer,
        )

    def _report_broken(self, layer: int) -> None:
        if layer not in self.broken:
            self.broken.add(layer)
            logger.warning(
                "ALARM: the probabilities of %s aren't finite: its weights or the states it reads have "
                "overflowed; go back to a good checkpoint and lower --learning_rate",
                self._name(layer),
            )

    def _name(self, layer: int) -> str:
        layers = list(self.windows)
        return f"the router in front of layer {layer} (DPE {layers.index(layer) + 1} of {len(layers)})"

    def _empty(self) -> Window:
        return Window(None, [0.0] * len(self.kernels))


def _wanted(config: DpnConfig) -> str:
    """Name the field that may ask for one expert for all samples."""
    if config.budget:
        return f"budget={config.budget:g}"
    return f"target={config.target:g}" if config.objective == "hinge" else f"mu={config.mu:g}"
