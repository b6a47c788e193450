"""The measurement contract: one process, variants interleaved in random order, warm-up, medians.

Every round runs every variant once, in an order drawn anew. A ratio is the median over the rounds of the
ratio within a round, so that a machine that gets slower or faster meanwhile cancels out.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

CLOCKS = ("wall", "cpu")


@dataclass(frozen=True)
class Task:
    """One thing to be timed."""

    run: Callable[[], Any]
    """What is in the clock."""
    after: Callable[[Any], Mapping[str, float]] = lambda _: {}
    """What looks at the result outside the clock: checks it, frees it, gives further figures of the round."""
    before: Callable[[], None] = lambda: None
    """What has to be done right in front of it, outside the clock: ranks wait for each other here."""


@dataclass
class Samples:
    """What the rounds of one task gave, in their order."""

    wall: list[float] = field(default_factory=list)
    """Seconds on the wall clock, the device's work included."""
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time over all threads of the process."""
    peak_bytes: list[int] = field(default_factory=list)
    """Highest device memory, weights included (CUDA only)."""
    extra: dict[str, list[float]] = field(default_factory=dict)
    """What `Task.after` gave."""

    def on(self, clock: str) -> np.ndarray:
        """Give the seconds on one of CLOCKS, round by round."""
        return np.array(self.wall if clock == "wall" else self.cpu)


def measure(
    tasks: Mapping[str, Task], *, rounds: int, warmup: int, device: torch.device, seed: int
) -> dict[str, Samples]:
    """Run every task `warmup` times for nothing, then once per round.

    Python's garbage collector is off within the clock and runs between two measurements.
    """
    order = np.random.default_rng(seed)
    gc.collect()
    gc.freeze()  # what is there already isn't looked through again and again
    samples = {name: Samples() for name in tasks}
    for task in tasks.values():
        for _ in range(warmup):
            task.before()
            task.after(task.run())
    for _ in range(rounds):
        for name in order.permutation(list(tasks)):
            _once(tasks[name], samples[name], device)
    gc.unfreeze()
    return samples


def _once(task: Task, samples: Samples, device: torch.device) -> None:
    gc.collect()
    gc.disable()
    task.before()
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = task.run()
    if is_cuda:
        torch.cuda.synchronize(device)
    samples.wall.append(time.perf_counter() - wall)
    samples.cpu.append(time.process_time() - cpu)
    gc.enable()
    if is_cuda:
        samples.peak_bytes.append(torch.cuda.max_memory_allocated(device))
    for name, value in task.after(result).items():
        samples.extra.setdefault(name, []).append(value)


def ratio(task: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Compare two series of the same rounds: median of the ratios, and their quartiles.

    >>> ratio(np.array([1.0, 3.0, 1.0]), np.array([2.0, 4.0, 4.0]))
    {'median': 0.5, 'low': 0.375, 'high': 0.625}
    """
    low, median, high = np.quantile(task / reference, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}
