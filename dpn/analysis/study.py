"""Accuracy against FLOPs over several seeds, with intervals: table, plot and JSON of a study.

python -m dpn.analysis.study results/study --output docs/results/toy

It reads STUDY/runs/METHOD/seedN/points/POINT/BENCHMARK/{scores.json, answers.jsonl}. A point is a method, or
one of the ways in which a method's checkpoint was run, then called METHOD@VALUE.
"""

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpn.analysis.estimate import Estimate, estimate
from dpn.analysis.results import Run, grades, load_runs, natural_order
from dpn.analysis.study_plot import draw_study

_NOTES = """\
Mean over seeds and half the width of its 95 % interval (Student's t over seeds). *accuracy*: mean over
{benchmarks}, in percent; grades: accuracy of the questions of that grade. FLOPs are those of the decoder's
prefill relative to dense: *visual* counts visual tokens and two FFN matrices (Eq. 8 of the paper), *full*
every token, three FFN matrices and the routers. *information*: mutual information between the grade (kind) of
a question and its route, in bits (plug-in estimate; all 27 routes drawn without looking at the question have
on average about {chance}; fewer routes less).
"""


def mutual_information(pairs: Sequence[tuple[Any, Any]]) -> float:
    """Give sum p(x, y) log2 p(x, y) / (p(x) p(y)) of observed pairs, in bits.

    >>> mutual_information([("coarse", "2x2"), ("fine", "1x1")])
    1.0
    """
    both, left, right = Counter(pairs), Counter(x for x, _ in pairs), Counter(y for _, y in pairs)
    total = len(pairs)
    return sum(
        count / total * math.log2(count * total / (left[x] * right[y])) for (x, y), count in both.items()
    )


def route_information(run: Run, key: str) -> float | None:
    """Give the information that routes carry about a key of the question (grade, kind), in bits."""
    pairs = [(row[key], tuple(row["route"])) for row in run.answers if key in row]
    return mutual_information(pairs) if pairs else None


def load_study(study: Path) -> dict[str, dict[str, Run]]:
    """Read all runs: point -> seed -> run, in the order of the folders' names.

    Raises:
        ValueError: no run has been evaluated yet.
    """
    found: dict[str, dict[str, Run]] = {}
    for folder in sorted(study.glob("runs/*/seed*/points/*"), key=lambda path: natural_order(str(path))):
        if any(folder.glob("*/scores.json")):
            (run,) = load_runs([f"{folder.name}={folder}"])
            found.setdefault(folder.name, {})[folder.parent.parent.name] = run
    if not found:
        raise ValueError(
            f"{study}: no evaluated run under runs/METHOD/seedN/points; run llava.toy.study first"
        )
    every = [run for seeds in found.values() for run in seeds.values()]
    widest = max(len(run.results) for run in every)
    return {
        point: complete
        for point, seeds in found.items()
        if (complete := {seed: run for seed, run in seeds.items() if len(run.results) == widest})
    }


def _chosen(points: dict[str, dict[str, Run]], methods: Sequence[str] | None) -> dict[str, dict[str, Run]]:
    if methods is None:
        return points
    found = {point.partition("@")[0] for point in points}
    if unknown := [method for method in methods if method not in found]:
        raise ValueError(
            f"--methods {' '.join(unknown)}: not in the study; it has {', '.join(sorted(found))}"
        )
    return {point: seeds for point, seeds in points.items() if point.partition("@")[0] in methods}


def summarise(points: dict[str, dict[str, Run]]) -> list[dict[str, Any]]:
    """Return one row per point: estimates over seeds, and the seeds' own values."""
    return [_row(point, seeds) for point, seeds in points.items()]


def _row(point: str, seeds: dict[str, Run]) -> dict[str, Any]:
    runs = list(seeds.values())
    values: dict[str, list[float]] = {
        "accuracy": [run.accuracy for run in runs],
        "flops_paper": [_flops(run, "paper") for run in runs],
        "flops_full": [_flops(run, "full") for run in runs],
    }
    for grade in grades(runs):
        values[f"accuracy_{grade}"] = [run.by_grade(grade)["accuracy"] for run in runs]
        values[f"flops_{grade}"] = [100 * run.by_grade(grade)["flops_paper"] for run in runs]
    for key in ("grade", "kind"):
        information = [route_information(run, key) for run in runs]
        if None not in information:
            values[f"information_{key}"] = [bits for bits in information if bits is not None]
    return {
        "point": point,
        "method": point.partition("@")[0],
        "kind": runs[0].kind,
        "seeds": list(seeds),
        "reduction": runs[0].reduction,
        "questions": len(runs[0].answers),
        "chance": _chance(runs[0]),
        "estimates": {name: estimate(listed)._asdict() for name, listed in values.items()},
        "values": values,
    }


def _flops(run: Run, counting: str) -> float:
    return 100 * run.mean_of(lambda scores: scores["flops_ratio"][counting])


def markdown(rows: Sequence[dict[str, Any]], benchmarks: Sequence[str]) -> str:
    """Render the rows as a Markdown table with its legend."""
    columns = {
        "accuracy": "accuracy",
        "flops_paper": "FLOPs (visual), %",
        "flops_full": "FLOPs (full), %",
        **{
            name: name.removeprefix("accuracy_") for name in rows[0]["values"] if name.startswith("accuracy_")
        },
        **{name: name.replace("_", ", ") for name in rows[0]["values"] if name.startswith("information_")},
    }
    lines = [["point", "seeds", *columns.values()], ["---", *["---:"] * (len(columns) + 1)]]
    for row in sorted(rows, key=lambda row: -row["estimates"]["flops_paper"]["mean"]):
        cells = [
            str(Estimate(**row["estimates"][name])) if name in row["values"] else "-" for name in columns
        ]
        lines.append([row["point"], str(len(row["seeds"])), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    chance = ", ".join(
        f"{max(row['chance'][key] for row in rows):.2f} about the {key}" for key in rows[0]["chance"]
    )
    return f"{table}\n\n{_NOTES.format(benchmarks=', '.join(benchmarks), chance=chance)}"


def chance_information(questions: int, groups: int, routes: int = 27) -> float:
    """Give the mean plug-in information, in bits, of routes that don't depend on the question's group.

    (G - 1) (R - 1) / (2 N ln 2) for R routes in use: the first order in 1 / N. With 900 questions in 6
    groups drawn routes have 7 % more.

    >>> round(chance_information(900, 6), 3)
    0.104
    """
    return (groups - 1) * (routes - 1) / (2 * questions * math.log(2))


def _chance(run: Run) -> dict[str, float]:
    """Give `chance_information` about grade and kind, where the questions have them."""
    groups = {key: {row[key] for row in run.answers if key in row} for key in ("grade", "kind")}
    return {key: chance_information(len(run.answers), len(found)) for key, found in groups.items() if found}


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, read the study, write everything."""
    parser = argparse.ArgumentParser(prog="python -m dpn.analysis.study", description=__doc__)
    parser.add_argument("study", type=Path, help="--output of llava.toy.study")
    parser.add_argument("--output", type=Path, help="folder to write to (default: the study's)")
    parser.add_argument(
        "--methods", nargs="+", help="only these, by what stands in front of @ (default: all)"
    )
    arguments = parser.parse_args(words)
    output = arguments.output or arguments.study
    try:
        points = _chosen(load_study(arguments.study), arguments.methods)
        rows = summarise(points)
        benchmarks = list(next(iter(next(iter(points.values())).values())).results)
        output.mkdir(parents=True, exist_ok=True)
        (output / "routing.json").write_text(json.dumps({"points": rows}, indent=1) + "\n", encoding="utf-8")
        (output / "routing_table.md").write_text(table := markdown(rows, benchmarks), encoding="utf-8")
        draw_study(rows, output / "routing.png")
    except ValueError as error:
        sys.exit(f"dpn.analysis.study: {error}")
    sys.stdout.write(f"{table}\nwrote {output}/routing.json, routing_table.md, routing.png\n")


if __name__ == "__main__":
    main()
