"""Where the time of one `generate` goes: encoding images, reading the prompt, writing the answer."""

import time
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from torch import nn

PHASES = ("encode", "prefill", "decode")


class Seconds(NamedTuple):
    """Wall clock of one batch in seconds."""

    encode: float
    """Vision tower, projector, merging into the prompt, and what `generate` prepares."""
    prefill: float
    """The first forward pass: the whole prompt through the decoder, and the language head."""
    decode: float
    """Everything after it: choosing tokens, and one forward pass per further token."""

    @property
    def total(self) -> float:
        return sum(self)


class PhaseClock:
    """Times the calls inside `with`, by hooks on the model that are gone afterwards.

    The first forward pass inside is the prefill. On a GPU the clock waits for the device at every reading:
    four times per batch.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.readings: list[float] = []
        """Start, start and end of the first forward pass, end."""

    def __enter__(self) -> Self:
        self.readings = []
        self.hooks = [
            self.model.register_forward_pre_hook(self._before),
            self.model.register_forward_hook(self._after),
        ]
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self.hooks:
            hook.remove()
        if error is None:
            self._read()

    def seconds(self) -> Seconds:
        """Return the three times; to be asked after the `with`, in which the model ran at least once."""
        start, prefill, decode, end = self.readings
        return Seconds(prefill - start, decode - prefill, end - decode)

    def _before(self, module: nn.Module, given: Any) -> None:
        if len(self.readings) == 1:
            self._read()

    def _after(self, module: nn.Module, given: Any, result: Any) -> None:
        if len(self.readings) == 2:
            self._read()

    def _read(self) -> None:
        """Note the time once the device has finished what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.readings.append(time.perf_counter())
