"""Score an answers file without a model.

python -m llava.eval.score gqa --data_root playground/data/eval --answers answers.jsonl --output scores.json
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmark import Benchmark, Question, match_answers, read_answers
from llava.eval.benchmarks import BENCHMARKS


def score_rows(
    benchmark: Benchmark,
    questions: Sequence[Question],
    rows: Sequence[Mapping[str, Any]],
    *,
    source: object,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Return label, metrics and counts for answer lines in any order; `source` names them in errors."""
    matched = match_answers(benchmark, questions, rows)
    if not allow_missing:
        matched.require_complete(source)
    protocol = benchmark.protocol([row["prompt"] for row in rows])
    return {
        "benchmark": benchmark.name,
        "protocol": protocol + ("+allow_missing" if allow_missing else ""),
        "headline": benchmark.headline,
        "metrics": benchmark.score(questions, matched.texts),
        "num_questions": len(questions),
        "num_missing": len(matched.missing),
        "num_duplicate": len(matched.duplicate),
        "num_unknown": len(matched.unknown),
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON that a reader never sees half written."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its exact name."""
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, score, write and print."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.score", description=__doc__)
    parser.add_argument("benchmark", help=", ".join(BENCHMARKS))
    parser.add_argument("--data_root", "--data-root", type=Path, default=Path("playground/data/eval"))
    parser.add_argument("--answers", type=Path, required=True, help="answers.jsonl in LLaVA's schema")
    parser.add_argument("--output", type=Path, required=True, help="scores.json to write")
    parser.add_argument("--allow_missing", "--allow-missing", action="store_true")
    arguments = parser.parse_args(words)
    try:
        benchmark = find_benchmark(arguments.benchmark)
        scores = score_rows(
            benchmark,
            benchmark.references(arguments.data_root),
            read_answers(arguments.answers),
            source=arguments.answers,
            allow_missing=arguments.allow_missing,
        )
    except ValueError as error:
        sys.exit(f"llava.eval.score: {error}")
    try:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.output, scores)
    except OSError as error:
        sys.exit(
            f"llava.eval.score: can't write {arguments.output} ({error.strerror}); choose another --output"
        )
    sys.stdout.write(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
