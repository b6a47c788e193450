"""Read result folders: results/<run>/<benchmark>/{scores.json, answers.jsonl}."""

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dpn.analysis.reading import (
    AGAIN,
    ANSWER_RULES,
    SCORE_RULES,
    Rules,
    check,
    is_finite,
    is_number,
    is_text,
    read_object,
    read_rows,
    shown,
)

POINTS = {"mme": 20.0}
"""What a benchmark's points are divided by in means over benchmarks, as in the paper's Table 1."""
_UNSAID: dict[str, Any] = {"text": "", "score": None, "image": None, "route": []}
"""What an answer line says where it lacks a key: nothing, so that it is neither scored nor drawn."""
_ANSWER_RULES: Rules = {**ANSWER_RULES, "grade": (is_text, "a string")}


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark of one run."""

    scores: dict[str, Any]
    answers: list[dict[str, Any]]

    @property
    def accuracy(self) -> float:
        """The metric papers report, in percent."""
        return self.scores["metrics"][self.scores["headline"]]

    @property
    def percent(self) -> float:
        """The same, or a share of it where it is in points."""
        return self.accuracy / POINTS.get(self.scores.get("benchmark", ""), 1.0)

    @property
    def standard_error(self) -> float:
        """Sampling error of the mean over questions, in percent."""
        values = [100 * row["score"] for row in self.answers]
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values)) / len(values)


@dataclass(frozen=True)
class Run:
    """One checkpoint with one way of choosing routes, on several benchmarks."""

    name: str
    results: dict[str, Result]

    @cached_property
    def reduction(self) -> dict[str, Any] | None:
        """What `config.json` says of the reduction, with what the command line changed."""
        return next(iter(self.results.values())).scores.get("reduction")

    @property
    def kind(self) -> str:
        """`dense`; `control`: routes chosen without looking, or no routers; `router`: a learned choice."""
        if self.reduction is None:
            return "dense"
        if self.reduction["method"] != "dpn":
            return "control"
        return "control" if self.reduction.get("eval_choice") in ("static", "random") else "router"

    @property
    def answers(self) -> list[dict[str, Any]]:
        """All answer lines, benchmark after benchmark."""
        return [row for result in self.results.values() for row in result.answers]

    @property
    def accuracy(self) -> float:
        """Mean over benchmarks, each counted once."""
        return mean(result.percent for result in self.results.values())

    @property
    def standard_error(self) -> float:
        """Sampling error of `accuracy`."""
        errors = [result.standard_error for result in self.results.values()]
        return math.sqrt(sum(error**2 for error in errors)) / len(errors)

    def mean_of(self, read: Callable[[dict[str, Any]], float]) -> float:
        """Average something in scores.json over benchmarks, each counted once."""
        return mean(read(result.scores) for result in self.results.values())

    @property
    def seconds(self) -> float | None:
        """Seconds per question, mean over benchmarks; None where a run was too short to be timed."""
        values = [result.scores["seconds_per_sample"] for result in self.results.values()]
        return None if None in values else mean(values)

    @property
    def measured_on(self) -> list[tuple[Any, ...]]:
        """What a time depends on besides the method."""
        keys = ("device", "dtype", "batch_size")
        return [tuple(result.scores[key] for key in keys) for result in self.results.values()]

    def by_grade(self, grade: str) -> dict[str, float]:
        """Accuracy, FLOPs and visual tokens of the questions of one grade, over all benchmarks together."""
        parts = [
            result.scores["by_grade"][grade]
            for result in self.results.values()
            if grade in result.scores["by_grade"]
        ]
        total = sum(part["num_questions"] for part in parts)

        def weighted(read: Callable[[dict[str, Any]], float]) -> float:
            return sum(read(part) * part["num_questions"] for part in parts) / total

        return {
            "num_questions": total,
            "accuracy": weighted(lambda part: part["accuracy"]),
            "visual_tokens": weighted(lambda part: part["visual_tokens"]),
            "flops_paper": weighted(lambda part: part["flops_ratio"]["paper"]),
        }


def load_runs(words: Sequence[str]) -> list[Run]:
    """Read runs given as DIR or NAME=DIR and check that they may stand in one table.

    Raises:
        ValueError: a folder without results, runs on different benchmarks, or two protocols in a column.
    """
    runs = [load_run(word) for word in words]
    names = [run.name for run in runs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two runs are called {repeated[0]!r}; name them with NAME=DIR")
    for run in runs[1:]:
        _require_comparable(runs[0], run)
    return runs


def grades(runs: Sequence[Run]) -> list[str]:
    """Return the grades of the questions, coarse to fine."""
    known = ("coarse", "medium", "fine")
    found = {
        grade
        for run in runs
        for result in run.results.values()
        for grade in result.scores.get("by_grade", {})
    }
    return [grade for grade in known if grade in found] + sorted(found.difference(known))


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean."""
    listed = list(values)
    return sum(listed) / len(listed)


def natural_order(text: str) -> list[tuple[int, str]]:
    """Return a sort key that puts seed10 behind seed9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", text)]


def load_run(word: str) -> Run:
    """Read one run given as DIR or NAME=DIR; benchmarks without a score are left out with a notice.

    Raises:
        ValueError: there is no result, none that is scored, or a file that isn't as llava.eval writes it.
    """
    name, equals, path = word.partition("=")
    folder = Path(path if equals else word)
    files = sorted(folder.glob("*/scores.json"))
    if not files:
        raise ValueError(
            f"{folder}: no <benchmark>/scores.json in it; expected the --output_dir of llava.eval"
        )
    results: dict[str, Result] = {}
    for path in files:
        scores = _read_scores(path)
        if "not_scored" in scores:
            sys.stderr.write(f"{path}: left out, not scored: {scores['not_scored']}\n")
        else:
            results[path.parent.name] = Result(scores=scores, answers=_read_answers(path))
    if not results:
        raise ValueError(f"{folder}: none of its {len(files)} benchmarks is scored; there is nothing to show")
    return Run(name if equals else folder.name, results)


def _read_scores(path: Path) -> dict[str, Any]:
    """Read scores.json; one without a score says why under `not_scored`."""
    scores = read_object(path)
    if "not_scored" in scores:
        return scores
    if absent := [key for key in ("protocol", "headline", "metrics") if key not in scores]:
        raise ValueError(f"{path}: no {', '.join(absent)}; {AGAIN}")
    check(scores, SCORE_RULES, str(path))
    headline, metrics = scores["headline"], scores["metrics"]
    if headline not in metrics:
        raise ValueError(f"{path}: the headline {shown(headline)} is none of its metrics; {AGAIN}")
    rules = dict.fromkeys(metrics, (is_finite, "a finite number"))
    check(metrics, rules | {headline: (is_number, "a finite number")}, f"{path}, metrics")
    return scores


def _read_answers(scores: Path) -> list[dict[str, Any]]:
    path = scores.with_name("answers.jsonl")
    if not path.is_file():
        raise ValueError(f"{path}: no such file beside scores.json; {AGAIN}")
    rows = read_rows(path, _ANSWER_RULES, required=("question_id", "prompt"))
    return [_UNSAID | row for _, row in rows]


def _require_comparable(first: Run, other: Run) -> None:
    if first.results.keys() != other.results.keys():
        raise ValueError(
            f"run {first.name!r} has {', '.join(first.results)}, run {other.name!r} has "
            f"{', '.join(other.results)}; evaluate every run on the same benchmarks"
        )
    for benchmark, result in first.results.items():
        ours, theirs = result.scores["protocol"], other.results[benchmark].scores["protocol"]
        if ours != theirs:
            raise ValueError(
                f"{benchmark}: run {first.name!r} was scored as {ours}, run {other.name!r} as {theirs}; "
                "scores of different protocols don't belong in one column"
            )
