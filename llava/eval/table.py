"""One table of a run: every benchmark's score beside LLaVA's and the paper's, protocols never mixed.

python -m llava.eval.table results/dpn-llava-v1.5-7b
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llava.eval.benchmarks import BENCHMARKS

REFERENCES = {"llava-1.5-7b": "LLaVA-1.5-7B", "dpn-llava-7b": "DPN-LLaVA-7B (paper)"}
"""Whose published values stand beside ours: keys of `Benchmark.published`, and their columns."""
AVERAGED = ("gqa", "scienceqa", "textvqa", "vqav2", "mme", "mmvet", "mmbench", "pope")
"""What the paper's average of Table 1 is over."""
_MME_SHARE = 20
"""MME's points count divided by this in the average."""
_TEXT_COLUMNS = ("benchmark", "protocol", "metric")
_COST_COLUMNS = ("FLOPs (visual)", "FLOPs (full)", "visual tokens", "s/question")


class Row(NamedTuple):
    """One benchmark of a run."""

    name: str
    protocol: str
    metric: str
    score: float | None
    """None where it can't be had without a server or a judge."""
    references: Mapping[str, float]
    """Published values; {} where they were measured under another protocol."""
    scores: Mapping[str, Any]
    """The whole scores.json."""


def read_run(folder: Path) -> list[Row]:
    """Read <benchmark>/scores.json of a run, in the order of the table of benchmarks.

    Raises:
        ValueError: there is none, or one isn't what `python -m llava.eval` writes.
    """
    rows = []
    for name, benchmark in BENCHMARKS.items():
        path = folder / name / "scores.json"
        if not path.exists():
            continue
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))
            protocol, metric = scores["protocol"], scores["headline"]
            score = scores["metrics"].get(metric)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: not a scores.json of llava.eval ({error!r}); evaluate again"
            ) from error
        is_same = protocol == benchmark.published_protocol
        rows.append(Row(name, protocol, metric, score, benchmark.published if is_same else {}, scores))
    if not rows:
        raise ValueError(
            f"{folder}: no <benchmark>/scores.json in it; expected the --output_dir of llava.eval"
        )
    return rows


def render(rows: Sequence[Row]) -> str:
    """Return a Markdown table and what has to be said about it.

    Values that were published under another protocol than ours stand in a row of their own.
    """
    numbers = ("score", *REFERENCES.values(), *_COST_COLUMNS)
    lines = [(*_TEXT_COLUMNS, *numbers), (*["---"] * len(_TEXT_COLUMNS), *["---:"] * len(numbers))]
    for row in rows:
        benchmark = BENCHMARKS[row.name]
        lines.append((*_ours(row), *_published(row.references), *_cost(row.scores)))
        if benchmark.published and not row.references:
            title = (row.name, benchmark.published_protocol, row.metric, "-")
            lines.append((*title, *_published(benchmark.published), *["-"] * len(_COST_COLUMNS)))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    unscored = [f"{row.name}: {row.scores.get('not_scored')}" for row in rows if row.score is None]
    return "\n".join([table, "", *(f"* {note}" for note in (_average(rows), *unscored))]) + "\n"


def _ours(row: Row) -> tuple[str, ...]:
    return row.name, row.protocol, row.metric, "-" if row.score is None else f"{row.score:.2f}"


def _published(values: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{values[key]:g}" if key in values else "-" for key in REFERENCES)


def _cost(scores: Mapping[str, Any]) -> tuple[str, ...]:
    ratios = scores.get("flops_ratio", {})
    tokens, seconds = scores.get("visual_tokens"), scores.get("seconds_per_sample")
    return (
        *(f"{100 * ratios[name]:.1f} %" if name in ratios else "-" for name in ("paper", "full")),
        "-" if tokens is None else f"{tokens:.1f}",
        "-" if seconds is None else f"{seconds:.4f}",
    )


def _average(rows: Sequence[Row]) -> str:
    """Average as the paper does, or say why there is no average."""
    named = ", ".join(name for name in AVERAGED if name != "mme") + f", mme / {_MME_SHARE}"
    comparable = {row.name: row for row in rows if row.references and row.score is not None}
    absent = [name for name in AVERAGED if name not in comparable]
    if absent:
        return (
            f"no average: it is over {named}, each under the published protocol; "
            f"not so here: {', '.join(absent)}"
        )
    ours = _mean_of({name: row.score or 0.0 for name, row in comparable.items()})
    theirs = [
        f"{column} {_mean_of({name: row.references[key] for name, row in comparable.items()}):.2f}"
        for key, column in REFERENCES.items()
    ]
    return f"average over {named}: {ours:.2f} ({', '.join(theirs)})"


def _mean_of(scores: Mapping[str, float]) -> float:
    return sum(scores[name] / (_MME_SHARE if name == "mme" else 1) for name in AVERAGED) / len(AVERAGED)


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.table", description=__doc__)
    parser.add_argument("run", type=Path, help="--output_dir of llava.eval")
    try:
        sys.stdout.write(render(read_run(parser.parse_args(words).run)))
    except ValueError as error:
        sys.exit(f"llava.eval.table: {error}")


if __name__ == "__main__":
    main()
