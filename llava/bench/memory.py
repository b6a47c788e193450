"""What a run needs of memory beside what is held anyway, measured outside the clock."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from llava.bench.timing import Task


def step_memory(task: Task, model: nn.Module, device: torch.device) -> dict[str, int]:
    """Run a step twice and look at its memory.

    Args:
        task: a training step, which has run before, so that nothing is allocated once for all.
        model: its weights aren't counted as kept.
        device: where the step runs.

    Returns:
        `step_bytes`: the most that torch has allocated at one time of the step, beyond what it held before:
        activations, gradients, gathered weights, passing results. `kept_bytes`: what autograd keeps between
        forward and backward pass, without the weights.
    """
    return {"step_bytes": peak_memory(task, device), "kept_bytes": _kept(task, model)}


def peak_memory(task: Task, device: torch.device) -> int:
    """Run a task once and give the most bytes that torch had allocated in it, beyond what it held before."""
    peak = _peak_on_cuda if device.type == "cuda" else _peak_on_cpu
    return peak(task, device)


def _peak_on_cuda(task: Task, device: torch.device) -> int:
    task.before()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    held = torch.cuda.memory_allocated(device)
    result = task.run()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - held
    task.after(result)
    return peak


def _peak_on_cpu(task: Task, device: torch.device) -> int:
    """Add up the profiler's record of every allocation and release: exact, unlike the resident set."""
    del device
    task.before()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = task.run()
    task.after(result)
    found: Any = record.profiler
    changes = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _kept(task: Task, model: nn.Module) -> int:
    """Add up the storages that autograd keeps; weights count nothing, also gathered ones of ZeRO-3."""
    parameters = list(model.parameters())
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        weights = {parameter.untyped_storage().data_ptr() for parameter in parameters}
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    task.before()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = task.run()
    task.after(result)
    return sum(storages.values())
