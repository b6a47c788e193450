"""What the distributed tests look at inside a run: one JSON line per observation, in the order of things.

{"start": {name: {...}}}        every new parameter before the first step, as this rank has it
{"step": {...}}                 a micro step: its ids, routes, and the modules and gathers in order
{"rates": [...]}                learning rates of the optimizer's groups after a step
"""

import hashlib
import json
import os
import resource
import signal

import torch
import torch.distributed as dist
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from transformers import TrainerCallback

import llava.train.train as entry
from llava.model.projector import gathered

FULL = 20_000
"""Bytes: more than a log has, less than a checkpoint."""
NEW = ("reducer.", "mm_projector.", "embed_tokens.", "lm_head.")


def install(record, *, traced=False, started=False, full_from=None, **kill):
    """Watch the run that this process is about to start.

    Args:
        record: where the lines go.
        traced: record modules and collectives, too.
        started: record the parameters before the first step.
        full_from: number of a step after which no file may grow beyond FULL bytes, as if the disk were full.
        kill: `rank` and number of a step, after which (`after`) or in the middle of whose checkpoint
            (`saving`) this rank kills itself with SIGKILL.
    """
    watch = Watch(record, traced=traced)
    if os.environ.get("RANK", "0") != str(kill.get("rank")):
        kill = {}
    callback = Events(watch, kill.get("after"), full_from, started)

    class Probed(entry.LlavaTrainer):
        """The trainer, seen at work; what it does is unchanged."""

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(callback)

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            ids = inputs["input_ids"].numpy().tobytes()
            loss, output = super().compute_loss(model, inputs, True, num_items_in_batch)
            routing = output.routing
            watch.begin_step(
                ids=hashlib.sha256(ids).hexdigest()[:12],
                loss=float(loss.detach()),
                routes=None if routing is None else [choice.tolist() for choice in routing.choices],
                visual=None if routing is None else [count.tolist() for count in routing.visual_counts],
            )
            return (loss, output) if return_outputs else loss

        def _save_rng_state(self, output_dir):
            if self.state.global_step == kill.get("saving"):
                os.kill(os.getpid(), signal.SIGKILL)
            super()._save_rng_state(output_dir)

    entry.LlavaTrainer = Probed
    if traced:
        watch_collectives(watch)


class Watch:
    """Lines of one rank's record; what is traced is written with the step that it belongs to."""

    def __init__(self, record, *, traced):
        self.file = record.open("w")
        self.traced = traced
        self.trace = []

    def begin_step(self, **seen):
        self.write(step=seen)

    def flush(self):
        if self.traced:
            self.write(trace=self.trace)
            self.trace = []

    def write(self, **line):
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()


class Events(TrainerCallback):
    def __init__(self, watch, kill_at, full_from, started):
        self.watch, self.kill_at, self.full_from, self.started = watch, kill_at, full_from, started

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if self.started:
            named = [(name, p) for name, p in model.named_parameters() if any(part in name for part in NEW)]
            self.watch.write(start={name: describe(parameter) for name, parameter in named})
        self.watch.trace = []

    def on_step_end(self, args, state, control, optimizer=None, model=None, **kwargs):
        self.watch.write(rates=[group["lr"] for group in optimizer.param_groups])
        self.watch.flush()
        buffers = {name: value for name, value in model.named_buffers() if "reducer." in name}
        self.watch.write(state={name.rpartition(".")[2]: digest(value) for name, value in buffers.items()})
        if state.global_step == self.full_from:
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))
        if state.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def digest(tensor):
    return hashlib.sha256(tensor.detach().float().numpy().tobytes()).hexdigest()[:12]


@torch.no_grad()
def describe(parameter):
    with gathered([parameter]):
        values = parameter.detach().float().clone()
    return {
        "digest": digest(values),
        "shape": list(values.shape),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "largest": float(values.abs().max()),
        "last_row_from_mean": float((values[-1] - values[:-1].mean(0)).abs().max()),
    }


def watch_collectives(watch):
    """Note every collective call of torch with its size, and every module that ZeRO-3 gathers."""
    for name in ("all_gather_into_tensor", "reduce_scatter_tensor", "all_reduce", "broadcast", "all_gather"):
        setattr(dist, name, noting(watch, name, getattr(dist, name)))
    fetch = PartitionedParameterCoordinator.fetch_sub_module

    def fetched(self, module, *args, **kwargs):
        watch.trace.append(["fetch", [p.ds_id for p in module.parameters(recurse=False)]])
        return fetch(self, module, *args, **kwargs)

    PartitionedParameterCoordinator.fetch_sub_module = fetched


def noting(watch, name, call):
    def noted(*args, **kwargs):
        given = [*args, *kwargs.values()]
        watch.trace.append([name, [part.numel() for part in given if isinstance(part, torch.Tensor)]])
        return call(*args, **kwargs)

    return noted
