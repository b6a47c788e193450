"""Where the time of one `generate` goes, and how much of it a method spends on itself.

Marks are set by hooks that are there for one run only. On a CPU a mark reads the clock; on a GPU it is an
event in the device's own order of work, so that nothing waits for it.

    |-- encode --|-- prefill --|-- decode --|      one after another: together they are the whole run
      front          deciding                      parts of them: together they are `select`

Shapes: B samples, H heads, N packed rows, C head width, G key/value heads, S ids, V vocabulary.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LogitsProcessor

from llava.model.llava_llama import LlavaLlamaForCausalLM

Mark = Any
"""A time in seconds, or an event of a GPU."""


class Clock(NamedTuple):
    """How marks are set, and read once the run is over."""

    mark: Callable[[], Mark]
    seconds: Callable[[Mark, Mark], float]


def clock_of(device: torch.device, name: str) -> Clock:
    """Give the clock of a device: events on a GPU, else the wall clock or processor time by its name."""
    if device.type == "cuda":
        return Clock(_event, lambda start, end: start.elapsed_time(end) / 1000)
    read = time.process_time if name == "cpu" else time.perf_counter
    return Clock(read, lambda start, end: end - start)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


class MarkedTap:
    """Stands in for what a layer fills with its attention, and marks how long that takes."""

    def __init__(self, tap: Any, open_span: Callable[[], None], close_span: Callable[[], None]) -> None:
        self.tap = tap
        self.open_span = open_span
        self.close_span = close_span

    def fill(self, query: Tensor, key: Tensor, scale: float) -> None:
        """Fill the layer's own tap from queries (1, H, N, C) and keys (1, G, N, C)."""
        self.open_span()
        self.tap.fill(query, key, scale)
        self.close_span()


class Watch(LogitsProcessor):
    """Marks one `generate` inside `with`; it is also its logits processor, which changes nothing."""

    def __init__(self, model: LlavaLlamaForCausalLM, clock: Clock) -> None:
        self.model = model
        self.clock = clock
        self.logits: list[Mark] = []
        """When the logits of every token were there."""
        self.spans: dict[str, list[list[Mark]]] = {"tower": [], "deciding": []}
        """Beginning and end of every call of the tower, and of the reducer and its ranking."""
        self.prefill: Mark | None = None
        """When the decoder began."""

    def __enter__(self) -> Self:
        decoder, reducer = self.model.model, self.model.model.reducer
        self.hooks = [decoder.register_forward_pre_hook(self._decoder_begins)]
        self._span("tower", decoder.get_vision_tower())
        if reducer is not None:
            self._span("deciding", reducer)
            for place in reducer.layers if reducer.needs_attention else ():
                layer = decoder.layers[place - 1]
                self.hooks.append(layer.register_forward_pre_hook(self._mark_tap, with_kwargs=True))
        self.start = self.clock.mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end = self.clock.mark()
        for hook in self.hooks:
            hook.remove()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mark that the logits of a token are there; (B, S) and (B, V) stay as they are."""
        self.logits.append(self.clock.mark())
        return scores

    def seconds(self) -> dict[str, float]:
        """Read the marks, once the device is done with the run.

        Returns:
            `encode`, `prefill`, `decode`; `tower` and `deciding` inside the first two; `step`, the median
            time between two tokens, where there are two.
        """
        between, first = self.clock.seconds, self.logits[0]
        found = {
            "encode": between(self.start, self.prefill),
            "prefill": between(self.prefill, first),
            "decode": between(first, self.end),
            **{name: sum(between(*span) for span in spans) for name, spans in self.spans.items()},
        }
        if len(self.logits) > 1:
            steps = [between(*pair) for pair in zip(self.logits, self.logits[1:], strict=False)]
            found["step"] = float(np.median(steps))
        return found

    def _span(self, name: str, module: nn.Module) -> None:
        """Mark the calls of a module."""
        self.hooks.append(module.register_forward_pre_hook(lambda *_: self._open(name)))
        self.hooks.append(module.register_forward_hook(lambda *_: self._close(name)))

    def _open(self, name: str) -> None:
        self.spans[name].append([self.clock.mark()])

    def _close(self, name: str) -> None:
        self.spans[name][-1].append(self.clock.mark())

    def _decoder_begins(self, module: nn.Module, given: Any) -> None:
        if self.prefill is None:
            self.prefill = self.clock.mark()

    def _mark_tap(self, module: nn.Module, given: Any, named: dict[str, Any]) -> Any:
        """Let a layer fill its tap between two marks, where it has one."""
        tap = named.get("tap")
        if tap is None:
            return None
        marked = MarkedTap(tap, lambda: self._open("deciding"), lambda: self._close("deciding"))
        return given, {**named, "tap": marked}
