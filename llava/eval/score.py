"""Score an answers file without a model.

python -m llava.eval.score gqa --data_root playground/data/eval --answers answers.jsonl --output scores.json
"""

import argparse
import copy
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmark import Benchmark, MatchedAnswers, Question, match_answers
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.reading import AnswersFile, MissingDataError
from llava.eval.writing import write_json


def score_rows(
    benchmark: Benchmark,
    questions: Sequence[Question],
    rows: Sequence[Mapping[str, Any]],
    *,
    source: object,
    allow_missing: bool = False,
) -> dict[str, Any]:
    """Return label, metrics and counts for answer lines in any order; `source` names them in errors."""
    matched = match_from(source, benchmark, questions, rows)
    if not allow_missing:
        matched.require_complete(source)
    protocol = benchmark.protocol(questions, [row["prompt"] for row in rows])
    return {
        "benchmark": benchmark.name,
        "protocol": protocol + ("+allow_missing" if allow_missing else ""),
        "headline": benchmark.headline,
        "metrics": benchmark.score(questions, matched.answers),
        "num_questions": len(questions),
        "num_missing": len(matched.missing),
        "num_duplicate": len(matched.duplicate),
        "num_unknown": len(matched.unknown),
    }


def match_from(
    source: object, benchmark: Benchmark, questions: Sequence[Question], rows: Sequence[Mapping[str, Any]]
) -> MatchedAnswers:
    """Lay answers beside their questions; refuse answers that have nothing to do with the benchmark."""
    try:
        matched = match_answers(benchmark, questions, rows)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if not rows:
        raise ValueError(f"{source}: no answers in it; expected one answer per question")
    if len(matched.missing) == len(questions):
        raise ValueError(
            f"{source}: none of the {len(rows)} answers belongs to a question of {benchmark.name}, for "
            f"example question_id {rows[0]['question_id']!r}; are they of another benchmark or split?"
        )
    return matched


def find_benchmark(name: str) -> Benchmark:
    """Return a benchmark by its exact name."""
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what scoring and exporting have in common."""
    parser.add_argument("benchmark", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--data_root",
        "--data-root",
        type=Path,
        default=Path("playground/data/eval"),
        help="folder of all benchmarks, or this benchmark's own",
    )
    parser.add_argument("--answers", type=Path, required=True, help="answers.jsonl in LLaVA's schema")
    parser.add_argument("--split", help="vqav2: test-dev, val; vizwiz: test, val; unset: that of the answers")


def chosen_benchmark(arguments: argparse.Namespace) -> Benchmark:
    """Return the benchmark, on the split, that the command line names."""
    benchmark = find_benchmark(arguments.benchmark)
    return benchmark if arguments.split is None else benchmark.of_split(arguments.split)


def in_own_folder(benchmark: Benchmark, root: Path, answers: AnswersFile) -> Benchmark:
    """Return a benchmark that reads its files in `root` itself where they lie there, and not below it."""
    if (root / benchmark.folder).exists():
        return benchmark
    own = copy.copy(benchmark)
    own.folder = "."
    try:
        own.references(root, answers)
    except MissingDataError:
        return benchmark  # its own error names the usual layout
    return own


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, score, write and print."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.score", description=__doc__)
    add_file_flags(parser)
    parser.add_argument("--output", type=Path, required=True, help="scores.json to write")
    parser.add_argument("--grades", type=Path, help="mmvet: the judge's file; unset: looked for by name")
    parser.add_argument("--allow_missing", "--allow-missing", action="store_true")
    arguments = parser.parse_args(words)
    try:
        scores = _score(arguments)
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


def _score(arguments: argparse.Namespace) -> dict[str, Any]:
    benchmark = chosen_benchmark(arguments)
    if arguments.grades is not None:
        benchmark = benchmark.of_grades(arguments.grades)
    require_other_file(arguments.output, arguments.answers)
    answers = benchmark.read_answers(arguments.answers)
    benchmark = in_own_folder(benchmark, arguments.data_root, answers)
    return score_rows(
        benchmark,
        benchmark.references(arguments.data_root, answers),
        answers.rows,
        source=arguments.answers,
        allow_missing=arguments.allow_missing,
    )


def require_other_file(output: Path, answers: Path) -> None:
    """Refuse to write over the answers."""
    if output.exists() and answers.exists() and output.samefile(answers):
        raise ValueError(f"--output {output} is the answers file itself; choose another --output")


if __name__ == "__main__":
    main()
