"""A run as JSON and as Markdown."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from llava import __version__
from llava.bench.arguments import BenchArguments
from llava.bench.bars import judge
from llava.bench.workloads import IN_THE_CLOCK

_NOTES = """\
{in_the_clock}, {tower}{sharding}. {clock} seconds, median of {rounds} rounds with all variants
interleaved in random order after {warmup} untimed runs; a ratio is the median of the ratios within a
round, in brackets its quartiles. {device}, {dtype}, {threads} threads; torch {torch},
transformers {transformers}. Decoder {hidden_size} x {num_layers} layers, feed-forward
{intermediate_size}, heads {num_heads}/{num_kv_heads}, random weights shared by all variants; prompts of
{visual} visual and {text} text tokens, DPEs in front of layers {dpe_layers}. FLOPs: of the decoder's
prefill relative to dense; *full* counts every token, three FFN matrices and the routers, *paper* visual
tokens and two FFN matrices (Eq. 8).
"""
_MEMORY_NOTES = """\
"step MB" is the most that torch has allocated at one time of a step, beyond what it held before it
(activations, gradients, gathered weights), "kept MB" what autograd keeps for the backward pass.
"""


def summarise(mode: str, arguments: BenchArguments, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collect what a reader needs to judge or to repeat the run."""
    shape = arguments.shape
    return {
        "mode": mode,
        "in_the_clock": IN_THE_CLOCK[mode],
        "tower": arguments.tower and mode != "train",
        "device": device_name(arguments.torch_device),
        "dtype": str(arguments.torch_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "versions": versions("deepspeed") if arguments.zero else versions(),
        "preset": arguments.preset,
        "shape": vars(shape) | {"visual": shape.visual, "dpe_layers": list(shape.dpe_layers)},
        "clock": arguments.clock,
        "rounds": arguments.rounds,
        "warmup": arguments.warmup,
        "seed": arguments.seed,
        "zero": arguments.zero,
        "ranks": arguments.ranks,
        "counting": "ratios over FLOPs use the full counting (dpn/flops.py)",
        "bars": [] if arguments.zero else judge(mode, cases),
        "cases": list(cases),
    }


def versions(*packages: str) -> dict[str, str]:
    """Name the versions of this repository, Python, torch, transformers and further packages."""
    return {
        "dpn-llava": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", *packages)},
    }


def device_name(device: torch.device) -> str:
    """Name the GPU, or the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def markdown(summary: Mapping[str, Any]) -> str:
    """Render a run: the goals, one table per case, and how it was measured."""
    parts = [f"# llava.bench {summary['mode']}, {summary['preset']}\n"]
    if summary["bars"]:
        parts.append(table(_BAR_COLUMNS, [_bar_cells(bar) for bar in summary["bars"]]))
    for case in summary["cases"]:
        answer = "" if case["answer"] is None else f", {case['answer']} answer tokens"
        parts.append(f"## batch {case['batch']}{answer}\n")
        columns = _columns(case["variants"])
        rows = [[_COLUMNS[name](row, case) for name in columns] for row in case["variants"]]
        parts.append(table(columns, rows))
    values = dict(summary["shape"]) | dict(summary["versions"]) | dict(summary)
    values["tower"] = "with vision tower and projector" if summary["tower"] else "without the vision tower"
    values["dpe_layers"] = ", ".join(map(str, summary["shape"]["dpe_layers"]))
    values["sharding"] = (
        f", ZeRO-{summary['zero']} on {summary['ranks']} rank(s) with a batch each" if summary["zero"] else ""
    )
    values["clock"] = {"wall": "Wall-clock", "cpu": "Processor"}[summary["clock"]]
    values["in_the_clock"] = "In the clock: " + summary["in_the_clock"]
    notes = _NOTES + (_MEMORY_NOTES if summary["mode"] == "train" else "")
    return "\n".join([*parts, notes.format(**values)])


def quartiles(found: Mapping[str, float]) -> str:
    """Write a ratio and its quartiles."""
    return f"{found['median']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def _ratio(name: str) -> Any:
    return lambda row, _: quartiles(row[name]) if name in row else ""


_COLUMNS = {
    "variant": lambda row, _: row["name"],
    "seconds": lambda row, _: f"{row['seconds']:.4g}",
    "samples/s": lambda row, case: f"{case['samples'] / row['seconds']:.2f}",
    "time / transformers": _ratio("over_transformers"),
    "time / dense": _ratio("over_dense"),
    "FLOPs (full)": lambda row, _: f"{row['flops_share']['full']:.3f}",
    "FLOPs (paper)": lambda row, _: f"{row['flops_share']['paper']:.3f}",
    "time / FLOPs": lambda row, _: f"{row['over_flops']:.3f}",
    "ms to first token": lambda row, _: f"{1000 * row['first_token_seconds']:.2f}",
    "ms per token": lambda row, _: f"{1000 * row['step_seconds']:.2f}" if "step_seconds" in row else "",
    "step / dense": _ratio("step_over_dense"),
    "cache MB": lambda row, _: f"{row['cache']['bytes'] / 1e6:.1f}",
    "cache / analytical": lambda row, _: f"{row['cache']['over_expected']:.3f}",
    "cache / real tokens": lambda row, _: f"{row['cache']['over_tokens']:.3f}",
    "peak GB": lambda row, _: f"{row['peak_bytes'] / 1e9:.2f}",
    "step MB": lambda row, _: f"{row['memory']['step_bytes'] / 1e6:.1f}",
    "step MB / dense": lambda row, _: f"{row['memory']['step_bytes_over_dense']:.3f}",
    "kept MB": lambda row, _: f"{row['memory']['kept_bytes'] / 1e6:.1f}",
    "kept MB / dense": lambda row, _: f"{row['memory']['kept_bytes_over_dense']:.3f}",
}
_NEEDS = {
    "time / transformers": "over_transformers",
    "ms to first token": "first_token_seconds",
    "ms per token": "step_seconds",
    "step / dense": "step_over_dense",
    "cache MB": "cache",
    "cache / analytical": "cache",
    "cache / real tokens": "cache",
    "peak GB": "peak_bytes",
    **dict.fromkeys(("step MB", "step MB / dense", "kept MB", "kept MB / dense"), "memory"),
}
"""Fields without which a column is left out."""
_BAR_COLUMNS = ("goal", "batch", "variant", "measured", "bar", "met")


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    is_decode = "first_token_seconds" in rows[0]
    hidden = {"time / FLOPs"} if is_decode else set()  # whole answers aren't prefills
    return [
        name
        for name in _COLUMNS
        if name not in hidden and (name not in _NEEDS or any(_NEEDS[name] in row for row in rows))
    ]


def _bar_cells(bar: Mapping[str, Any]) -> list[str]:
    met = "yes" if bar["met"] else "no"
    return [
        bar["figure"],
        str(bar["batch"]),
        bar["variant"],
        f"{bar['measured']:.3f}",
        f"{bar['limit']:.2f}",
        met,
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table whose first column is text and whose others are numbers."""
    lines = [list(columns), ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
