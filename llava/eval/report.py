"""scores.json of one benchmark in one run: what was scored, how, and what it cost."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers

from llava import __version__
from llava.eval.benchmark import NotScoredError, percent
from llava.eval.phases import PHASES
from llava.eval.runner import Plan, Session
from llava.eval.score import score_rows
from llava.model.budgets import COUNTINGS, shift_for

_CLOCK = (
    "mean wall clock of generate per question (batch time / questions): vision tower, projector, prefill, "
    "decoding; data loading, image decoding, tokenizing and the copy to the device are outside; the first "
    "batch of every process is warm-up and left out. Phases: encode ends where the first forward pass of the "
    "decoder begins, prefill where it ends"
)


def build_scores(
    plan: Plan, session: Session, rows: Sequence[Mapping[str, Any]], label_suffix: str
) -> dict[str, Any]:
    """Put together scores.json from the merged answer lines."""
    scores = _scores(plan, rows)
    scores["protocol"] += session.label_mark + label_suffix
    timed = [row for row in rows if row["seconds"] is not None and row["batch_size"] == plan.batch_size]
    fingerprint = plan.files.fingerprint()
    return {
        **scores,
        **_cost(rows),
        **_budget(plan, session, rows),
        "by_grade": _by_grade(rows),
        "seconds_per_sample": _mean([row["seconds"] for row in timed]) if timed else None,
        "seconds_by_phase": {
            phase: _mean([row["seconds_by_phase"][phase] for row in timed]) if timed else None
            for phase in PHASES
        },
        "timing": {"clock": _CLOCK, "questions_timed": len(timed), "threads": torch.get_num_threads()},
        "model_id": session.model_id,
        "checkpoint": fingerprint.get("checkpoint"),
        "base": fingerprint.get("base"),
        "reduction": session.reduction,
        "image_aspect_ratio": session.model.config.image_aspect_ratio,
        "device": _device_name(session.device),
        "dtype": str(session.dtype).removeprefix("torch."),
        "batch_size": plan.batch_size,
        "generation": plan.generation,
        "versions": {
            "llava": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def _scores(plan: Plan, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Score the answers; where that needs a server or a judge, say so in place of metrics."""
    try:
        return score_rows(plan.benchmark, plan.questions, rows, source=plan.files.merged)
    except NotScoredError as error:
        return {
            "benchmark": plan.benchmark.name,
            "protocol": plan.benchmark.protocol(plan.questions, [row["prompt"] for row in rows]),
            "headline": plan.benchmark.headline,
            "metrics": {},
            "not_scored": str(error),
            "num_questions": len(plan.questions),
            "num_missing": 0,
        }


def _cost(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average FLOPs and tokens over answer lines.

    `flops_ratio` is relative to dense, `gflops` absolute (10^9 multiply-adds), both of the prefill;
    `visual_tokens` and `tokens` are means over the decoder's layers, too. Dense is plain LLaVA's decoder,
    whose layers all read `dense_visual_tokens`, also where a projector leaves fewer.
    """
    countings = rows[0]["flops_ratio"]
    return {
        "flops_ratio": {name: _mean([row["flops_ratio"][name] for row in rows]) for name in countings},
        "gflops": {name: _mean([row["flops"][name] for row in rows]) / 1e9 for name in countings},
        "visual_tokens": _mean([_mean(row["visual_tokens_per_layer"]) for row in rows]),
        "dense_visual_tokens": _mean([row["dense_visual_tokens"] for row in rows]),
        "tokens": _mean([_mean(row["tokens_per_layer"]) for row in rows]),
        "prompt_tokens": _mean([row["prompt_tokens"] for row in rows]),
        "answer_tokens": _mean([row["answer_tokens"] for row in rows]),
    }


def _budget(plan: Plan, session: Session, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say what a budget asked for and what it came to; {} where there was none."""
    asked = plan.generation.get("budget")
    if asked is None:
        return {}
    counting = plan.generation["counting"]
    shift = shift_for(session.model.budgets, session.reduction, asked, counting)
    realised = _cost(rows)["flops_ratio"][COUNTINGS[counting]]
    return {"budget": {"asked": asked, "counting": counting, "shift": shift, "realised": realised}}


def _by_grade(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Split accuracy and cost by the grade that question lines may carry; {} where none does."""
    by_grade: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if "grade" in row:
            by_grade.setdefault(row["grade"], []).append(row)
    return {
        grade: {
            "num_questions": len(members),
            "accuracy": percent([row["score"] for row in members if row["score"] is not None]),
            **_cost(members),
        }
        for grade, members in by_grade.items()
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _device_name(device: torch.device) -> str:
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})"
    )
