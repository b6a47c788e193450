"""An alarm for routers that have stopped choosing.

A router has collapsed when, over the last 256 samples that its DPE routed (or more, a line of the log at a
time), one expert took 98 % of them or more. It has recovered when no expert takes more than 90 % of as many
samples; so a router at the border is reported once, and not in every line. A router whose probabilities
aren't finite is reported at once.
"""

import logging
import math
from collections.abc import Mapping, Sequence

from llava.model.reduction import DpnConfig

logger = logging.getLogger(__name__)

WINDOW = 256
"""Routed samples that a judgement needs."""
COLLAPSED, RECOVERED = 0.98, 0.90
"""Share of one expert at and above which a router has collapsed, and up to which it is well again."""
CHOOSING = ("sample", "gumbel", "argmax")
"""Values of `train_choice` with which the router decides; forced and uniform routes raise no alarm."""


class CollapseAlarm:
    """Judges every DPE by its choices since the last judgement, and says what has changed."""

    def __init__(self, config: DpnConfig) -> None:
        self.kernels = [f"{rows}x{columns}" for rows, columns in config.kernels]
        self.is_watching = config.train_choice in CHOOSING
        self.counts = {layer: [0.0] * len(self.kernels) for layer in config.layers}
        self.collapsed: set[int] = set()
        self.broken: set[int] = set()

    def see(self, counts: Mapping[int, Sequence[float]], entropies: Mapping[int, float | None]) -> None:
        """Add choices per expert of every DPE's layer, and the mean entropy (nats) where it routed."""
        if not self.is_watching:
            return
        for layer, new in counts.items():
            entropy = entropies.get(layer)
            if entropy is not None and not math.isfinite(entropy):
                self._report_broken(layer)
            window = [old + more for old, more in zip(self.counts[layer], new, strict=True)]
            if sum(window) >= WINDOW:
                self._judge(layer, window, entropy)
                window = [0.0] * len(window)
            self.counts[layer] = window

    def _judge(self, layer: int, window: Sequence[float], entropy: float | None) -> None:
        total = sum(window)
        share, index = max((count / total, index) for index, count in enumerate(window))
        if share >= COLLAPSED and layer not in self.collapsed:
            self.collapsed.add(layer)
            logger.warning(
                "ALARM: the router in front of layer %d has collapsed: %s took %.1f %% of the last %d "
                "samples (entropy %.3f of %.3f nats). docs/training.md says what may help",
                layer,
                self.kernels[index],
                100 * share,
                total,
                math.nan if entropy is None else entropy,
                math.log(len(self.kernels)),
            )
        elif share <= RECOVERED and layer in self.collapsed:
            self.collapsed.remove(layer)
            logger.warning(
                "the router in front of layer %d chooses again: at most %.1f %% for one expert (%s)",
                layer,
                100 * share,
                self.kernels[index],
            )

    def _report_broken(self, layer: int) -> None:
        if layer not in self.broken:
            self.broken.add(layer)
            logger.warning(
                "ALARM: the probabilities of the router in front of layer %d aren't finite: its weights or "
                "the states it reads have overflowed; go back to a good checkpoint and lower --learning_rate",
                layer,
            )
