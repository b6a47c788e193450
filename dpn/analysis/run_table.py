"""The table of a summary, one row per run: accuracy, cost, time; as data and as Markdown."""

from collections.abc import Sequence
from typing import Any

from dpn.analysis.reading import AGAIN
from dpn.analysis.results import Run, grades

_NEEDED = ("by_grade", "flops_ratio", "visual_tokens", "seconds_per_sample", "device", "dtype", "batch_size")
"""What the table needs of scores.json besides the score."""
_NOTES = """\
Accuracy in percent; every column is one protocol. *mean*: over the benchmarks. Grades: accuracy of the
questions of that grade, over all benchmarks. FLOPs are those of the decoder's prefill relative to dense:
*visual* counts visual tokens only and two FFN matrices (Eq. 8 of the paper), *full* every token, three FFN
matrices and the routers. Tokens: visual tokens per question, mean over the decoder's layers. Time: seconds
of generation per question, with the vision tower, without data loading ({measured}); the ratio is to
{reference}.
"""


def summarise(runs: Sequence[Run], reference: Run) -> dict[str, Any]:
    """Return what the table shows, at full precision.

    Raises:
        ValueError: a result without costs, or with answers that have no score.
    """
    for run in runs:
        _require_costs(run)
    return {
        "reference": reference.name,
        "protocols": {name: result.scores["protocol"] for name, result in reference.results.items()},
        "runs": [_row(run, reference, grades(runs)) for run in runs],
    }


def markdown(summary: dict[str, Any]) -> str:
    """Render a summary as a Markdown table with its legend."""
    rows = summary["runs"]
    graded = list(rows[0]["by_grade"])
    header = [
        "run",
        *(f"{name} ({protocol})" for name, protocol in summary["protocols"].items()),
        "mean",
        *graded,
        "FLOPs (visual)",
        "FLOPs (full)",
        "tokens",
        *(f"tokens, {grade}" for grade in graded),
        "s/question",
        "time ratio",
    ]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *(_cells(row, graded) for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    settings = sorted({", ".join(map(str, setting)) for row in rows for setting in row["measured_on"]})
    notes = _NOTES.format(
        measured="device, dtype, batch: " + "; ".join(settings), reference=summary["reference"]
    )
    return f"{table}\n\n{notes}"


def _require_costs(run: Run) -> None:
    for benchmark, result in run.results.items():
        scores = result.scores
        absent = [key for key in _NEEDED if key not in scores] or [
            f"flops_ratio.{name}" for name in ("paper", "full") if name not in scores["flops_ratio"]
        ]
        if absent:
            raise ValueError(
                f"run {run.name!r}, {benchmark}/scores.json: no {', '.join(absent)}; the table has costs, "
                f"{AGAIN} with python -m llava.eval"
            )
        if unscored := sum(row["score"] is None for row in result.answers):
            raise ValueError(
                f"run {run.name!r}, {benchmark}/answers.jsonl: {unscored} of {len(result.answers)} answers "
                f"have no score; {AGAIN}"
            )


def _row(run: Run, reference: Run, graded: Sequence[str]) -> dict[str, Any]:
    return {
        "name": run.name,
        "kind": run.kind,
        "accuracy": {name: result.accuracy for name, result in run.results.items()},
        "mean_accuracy": run.accuracy,
        "standard_error": run.standard_error,
        "by_grade": {grade: run.by_grade(grade) for grade in graded},
        "flops_ratio": {
            counting: run.mean_of(lambda scores, name=counting: scores["flops_ratio"][name])
            for counting in ("paper", "full")
        },
        "visual_tokens": run.mean_of(lambda scores: scores["visual_tokens"]),
        "seconds_per_sample": run.seconds,
        "seconds_ratio": _time_ratio(run, reference),
        "measured_on": run.measured_on,
        "reduction": run.reduction,
    }


def _time_ratio(run: Run, reference: Run) -> float | None:
    """Compare times; None where device, dtype or batch size differ or a time is missing."""
    if run.seconds is None or reference.seconds is None or run.measured_on != reference.measured_on:
        return None
    return run.seconds / reference.seconds


def _cells(row: dict[str, Any], graded: Sequence[str]) -> list[str]:
    by_grade = [row["by_grade"][grade] for grade in graded]
    return [
        row["name"],
        *(f"{value:.2f}" for value in row["accuracy"].values()),
        f"{row['mean_accuracy']:.2f}",
        *(f"{part['accuracy']:.1f}" for part in by_grade),
        *(f"{100 * row['flops_ratio'][counting]:.1f} %" for counting in ("paper", "full")),
        f"{row['visual_tokens']:.1f}",
        *(f"{part['visual_tokens']:.1f}" for part in by_grade),
        "-" if row["seconds_per_sample"] is None else f"{row['seconds_per_sample']:.4f}",
        "-" if row["seconds_ratio"] is None else f"{row['seconds_ratio']:.2f}",
    ]
