"""One case: all variants on one batch, timed and held against what they should cost.

Shapes: B samples, T merged length, V vocabulary.
"""

import gc
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llava.bench import ranks
from llava.bench.arguments import BenchArguments
from llava.bench.costs import cache_bytes, expected_cache_bytes, flops_shares, tokens_of_layers
from llava.bench.inputs import Batch, make_batch
from llava.bench.memory import step_memory
from llava.bench.shapes import Shape
from llava.bench.timing import Samples, Task, measure, ratio
from llava.bench.variants import Routes, Variant, check_routes
from llava.bench.workloads import decode, prefill, train

TOLERANCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference of our dense logits from transformers', relative to the largest logit."""


def run_case(
    variants: list[Variant], arguments: BenchArguments, mode: str, *, size: int, answer: int | None
) -> dict[str, Any]:
    """Time the variants on one batch of `size` prompts; `answer` tokens are generated.

    Raises:
        ValueError: routers that don't take the wanted routes, or our dense model isn't transformers'.
    """
    shape = arguments.shape
    has_tower = arguments.tower and mode != "train"
    dense = next(variant for variant in variants if variant.kind == "dense")
    supervised = arguments.supervised if mode == "train" else 0
    batch = make_batch(
        dense.ours,
        shape,
        size=size * arguments.ranks,
        seed=arguments.seed,
        has_tower=has_tower,
        answer=supervised,
    )
    shown = [variant for variant in variants if batch.size > 1 or variant.kind != "mixed"]
    taught = {variant.name: variant.teach(batch, arguments.seed) for variant in shown}
    facts = {variant.name: _facts(variant, batch, taught[variant.name], shape) for variant in shown}
    differences = _compare(shown, facts, arguments.torch_dtype)
    tasks = {
        variant.name: _task(variant, batch, taught[variant.name], mode, arguments, answer=answer)
        for variant in shown
    }
    samples = measure(
        tasks,
        rounds=arguments.rounds,
        warmup=arguments.warmup,
        device=arguments.torch_device,
        seed=arguments.seed,
    )
    memory = _memory(shown, tasks, arguments.torch_device) if mode == "train" else {}
    if arguments.zero:
        samples, memory = ranks.joined(samples), ranks.largest(memory)
    rows = [
        _row(variant, facts[variant.name], samples, arguments.clock)
        | differences.get(variant.name, {})
        | _memory_fields(variant.name, memory)
        for variant in shown
    ]
    return {"batch": size, "samples": batch.size, "answer": answer, "variants": rows}


def _task(
    variant: Variant,
    batch: Batch,
    routes: Routes | None,
    mode: str,
    arguments: BenchArguments,
    *,
    answer: int | None,
) -> Task:
    """Make a variant's task; under ZeRO this takes its model to pieces."""
    if mode == "prefill":
        return prefill(variant, batch, routes)
    if mode == "train" and arguments.zero:
        return train(variant, *ranks.own_part(batch, routes), ranks.engine_of(variant.model, arguments))
    if mode == "train":
        return train(variant, batch, routes)
    assert answer is not None
    return decode(variant, batch, routes, answer=answer, has_tower=arguments.tower)


def _memory(
    variants: list[Variant], tasks: dict[str, Task], device: torch.device
) -> dict[str, dict[str, int]]:
    """Measure every variant's memory of a step, by its name."""
    found = {}
    for variant in variants:
        gc.collect()
        found[variant.name] = step_memory(tasks[variant.name], variant.model, device)
    return found


def _memory_fields(name: str, memory: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Give a variant's memory and its ratios to dense; nothing where none was measured."""
    if name not in memory:
        return {}
    ratios = {f"{key}_over_dense": value / memory["dense"][key] for key, value in memory[name].items()}
    return {"memory": memory[name] | ratios}


@torch.no_grad()
def _facts(variant: Variant, batch: Batch, routes: Routes | None, shape: Shape) -> dict[str, Any]:
    """Look at one prefill: its costs, and the logits (B, V) of the next token."""
    is_training = variant.model.training
    output = variant.model(**variant.inputs(batch), use_cache=not is_training, logits_to_keep=1)
    routing = getattr(output, "routing", None)
    check_routes(variant, routing, routes)
    config = variant.ours.config if variant.is_routed else None
    shares = {"paper": 1.0, "full": 1.0}
    if config is not None:
        shares = flops_shares(routing, config, shape, batch.size)
    tokens = tokens_of_layers(routing, shape, batch.size)
    found = {
        "flops_share": shares,
        "tokens_per_layer": np.round(tokens.mean(0), 1).tolist(),
        "logits": output.logits[:, -1].float(),
    }
    if not is_training:
        held = cache_bytes(output.past_key_values)
        expected = expected_cache_bytes(tokens, shape, output.logits.element_size())
        found["cache"] = {
            "bytes": held,
            "over_expected": held / expected["cells"],
            "over_tokens": held / expected["tokens"],
        }
    return found


def _compare(
    variants: list[Variant], facts: dict[str, dict[str, Any]], dtype: torch.dtype
) -> dict[str, dict[str, float]]:
    """Check that the models that should agree do; returns the differences found.

    Raises:
        ValueError: our dense model computes something else than transformers'.
    """
    logits: dict[str, Tensor] = {variant.kind: facts[variant.name].pop("logits") for variant in variants}
    found = {}
    for kind, reference in (("dense", "transformers"), ("identity", "dense")):
        if kind in logits and reference in logits:
            largest = (logits[kind] - logits[reference]).abs().max() / logits[reference].abs().max()
            found[kind] = {f"logits_off_{reference}": float(largest)}
    off = found.get("dense", {}).get("logits_off_transformers", 0.0)
    if not off <= TOLERANCE[dtype]:
        raise ValueError(
            f"our dense logits differ from transformers' by {off:.1e} of the largest, more than "
            f"{TOLERANCE[dtype]:.0e}: the two models don't compute the same, and times can't be compared"
        )
    return found


def _row(variant: Variant, facts: dict[str, Any], samples: dict[str, Samples], clock: str) -> dict[str, Any]:
    own = samples[variant.name]
    row = {
        "name": variant.name,
        "kind": variant.kind,
        **facts,
        "seconds": float(np.median(own.on(clock))),
        **{f"{name}_seconds": float(np.median(values)) for name, values in own.extra.items()},
    }
    row["loss"] = row.pop("loss_seconds", None)
    for reference in ("dense", "transformers"):
        if reference in samples:
            row[f"over_{reference}"] = ratio(own.on(clock), samples[reference].on(clock))
    for name in ("first_token", "step"):
        if name in own.extra:
            series, dense = np.array(own.extra[name]), np.array(samples["dense"].extra[name])
            row[f"{name}_over_dense"] = ratio(series, dense)
    row["over_flops"] = row["over_dense"]["median"] / facts["flops_share"]["full"]
    if own.peak_bytes:
        row["peak_bytes"] = int(np.median(own.peak_bytes))
    row["rounds"] = {"wall": own.wall, "cpu": own.cpu, **own.extra}
    return row
