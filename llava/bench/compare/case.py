"""One case: all contenders on one batch and one length of answers.

Shapes: B samples, R rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import LogitsProcessorList

from llava.bench.compare.arguments import CompareArguments
from llava.bench.compare.contenders import Contender
from llava.bench.compare.counting import COUNTINGS, Facts
from llava.bench.compare.phases import Watch, clock_of
from llava.bench.inputs import Batch
from llava.bench.memory import peak_memory
from llava.bench.timing import Samples, Task, measure, ratio
from llava.bench.variants import Routes, check_routes
from llava.bench.workloads import answer_settings
from llava.model.reduction import routing_of

PHASES = ("encode", "select", "prefill", "decode", "end_to_end")


@dataclass(frozen=True)
class Prepared:
    """A contender whose routers have been taught a batch, and what was counted on it."""

    contender: Contender
    facts: Facts
    routes: Routes | None


def run_case(
    prepared: Sequence[Prepared], batch: Batch, arguments: CompareArguments, answer: int
) -> dict[str, Any]:
    """Time `generate` of every contender, round by round, in random order; one of them is dense.

    Raises:
        ValueError: an answer that ended early, or routers that took another route.
    """
    tasks = {one.contender.name: _task(one, batch, arguments, answer) for one in prepared}
    device = arguments.torch_device
    peaks = {name: peak_memory(task, device) for name, task in tasks.items()}
    samples = measure(
        tasks, rounds=arguments.rounds, warmup=arguments.warmup, device=device, seed=arguments.seed
    )
    series = {
        one.contender.name: _series(one.contender.setting.where, samples, one.contender.name, arguments.clock)
        for one in prepared
    }
    facts = {one.contender.name: one.facts for one in prepared}
    rows = [_row(one, series, facts, peaks, batch.size) for one in prepared]
    return {"batch": batch.size, "answer": answer, "rows": rows}


def _task(one: Prepared, batch: Batch, arguments: CompareArguments, answer: int) -> Task:
    """Make one `generate` with its marks."""
    model, inputs = one.contender.model, one.contender.inputs(batch)
    clock = clock_of(arguments.torch_device, arguments.clock)
    settings = answer_settings(answer)

    def run() -> Any:
        with Watch(model, clock) as watch:
            output = model.generate(
                inputs["input_ids"],
                images=inputs["images"],
                logits_processor=LogitsProcessorList([watch]),
                **settings,
            )
        return output, watch

    def after(result: Any) -> Mapping[str, float]:
        output, watch = result
        check_routes(one.contender.variant, routing_of(output.past_key_values), one.routes)
        if len(watch.logits) != answer:
            raise ValueError(f"{one.contender.name} ended after {len(watch.logits)} of {answer} tokens")
        return watch.seconds()

    return Task(run, after)


def _series(where: str, samples: dict[str, Samples], name: str, clock: str) -> dict[str, np.ndarray]:
    """Give the seconds of every phase, round by round: arrays (R,).

    `select` has two parts: `deciding`, between marks inside the prefill, and `front`, by how much `encode`
    differs from dense's in the same round. Projectors leave the tower alone, so its time is left out of both
    sides; methods in the decoder change nothing in front of it, so theirs is 0.
    """
    own, dense = (
        {key: np.array(value) for key, value in samples[one].extra.items()} for one in (name, "dense")
    )
    front = np.zeros_like(own["encode"])
    if where == "projector":
        front = (own["encode"] - own["tower"]) - (dense["encode"] - dense["tower"])
    elif where == "front":
        front = own["encode"] - dense["encode"]
    return {**own, "front": front, "select": front + own["deciding"], "end_to_end": samples[name].on(clock)}


def _row(
    one: Prepared,
    series: dict[str, dict[str, np.ndarray]],
    facts: dict[str, Facts],
    peaks: dict[str, int],
    size: int,
) -> dict[str, Any]:
    contender, own, dense = one.contender, series[one.contender.name], series["dense"]
    shares = {
        name: facts[contender.name].prefill[name] / _dense_flops(facts, contender.name, name)
        for name in COUNTINGS
    }
    slower = ratio(own["prefill"], dense["prefill"])["median"]
    step = own.get("step")
    return {
        "name": contender.name,
        "method": contender.setting.method,
        "where": contender.setting.where,
        "attention": str(contender.model.config._attn_implementation),
        "settings": list(contender.setting.words),
        "budget": contender.budget,
        "share_computed": contender.share,
        "share": one.facts.share,
        "visual_tokens": list(one.facts.visual_tokens),
        "tokens": list(one.facts.tokens),
        "flops": {"encode": one.facts.encode, "prefill": one.facts.prefill},
        "flops_share": shares,
        "attention_not_counted": list(one.facts.unseen),
        "phases": {phase: _timing(phase, own, dense) for phase in PHASES},
        "select_parts": {name: float(np.median(own[name])) for name in ("front", "deciding")},
        "step_seconds": None if step is None else float(np.median(step)),
        "samples_per_second": size / float(np.median(own["end_to_end"])),
        "time_over_flops": {name: slower / share for name, share in shares.items()},
        "kv_bytes": one.facts.cache_bytes,
        "kv_over_dense": one.facts.cache_bytes / facts["dense"].cache_bytes,
        "peak_bytes": peaks[contender.name],
        "peak_over_dense": peaks[contender.name] / peaks["dense"],
        "rounds": {name: values.tolist() for name, values in sorted(own.items())},
    }


def _dense_flops(facts: dict[str, Facts], name: str, counting: str) -> float:
    """Count what plain LLaVA's decoder would do with the same batch."""
    return facts["dense"].prefill[counting] if counting == "measured" else facts[name].dense[counting]


def _timing(phase: str, own: dict[str, np.ndarray], dense: dict[str, np.ndarray]) -> dict[str, Any]:
    """Sum up the rounds of a phase; `select` is 0 for dense, and relative to dense's whole run."""
    low, median, high = np.quantile(own[phase], [0.25, 0.5, 0.75])
    reference = dense["end_to_end" if phase == "select" else phase]
    return {
        "seconds": float(median),
        "low": float(low),
        "high": float(high),
        "over_dense": ratio(own[phase], reference),
    }
