"""How far a router is from the best that it could do: the oracle's frontier, and the router's regret.

python -m dpn.analysis.oracle results/oracle --output results/oracle

It reads what `python -m llava.eval.oracle` writes: FOLDER/router and one folder per forced route. The oracle
picks every question's route after seeing which answers are right, so it also profits from lucky ones; the
oracle by kind picks one route for all questions of a kind and can't.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpn.analysis.frontier import cost_at, score_at
from dpn.analysis.oracle_plot import draw_oracles
from dpn.analysis.outcomes import Oracle, load_oracles
from dpn.analysis.render import Table, markdown
from dpn.analysis.resampling import Interval

_COUNTINGS = {"paper": "visual tokens, Eq. 8", "full": "all tokens"}
_LINES = {"oracle": "oracle", "by_kind": "oracle by kind", "constant": "one route for all"}
"""What the router is held against, and its name in the table."""


def summarise(oracle: Oracle, samples: int, seed: int) -> dict[str, Any]:
    """Return everything that is shown of one benchmark, at full precision."""
    cost, score = oracle.at_router
    found = {
        "benchmark": oracle.name,
        "questions": len(oracle.cost),
        "router": {"cost": cost, "accuracy": score},
        "regret": oracle.regret(samples, seed)._asdict(),
        "solved": oracle.agreement()[0],
        "solved_at_least_cost": oracle.agreement()[1],
        "routes": {
            name: {"cost": float(at), "accuracy": float(right)}
            for name, at, right in zip(oracle.routes, oracle.cost.mean(0), oracle.score.mean(0), strict=True)
        },
    }
    for name, line in (("oracle", oracle.best), ("by_kind", oracle.by_kind), ("constant", oracle.constant)):
        if line is not None:
            curve = line.curve()
            found[name] = {
                "accuracy_at_router_cost": score_at(curve, cost),
                "cost_at_router_accuracy": cost_at(curve, score),
                "best_accuracy": float(curve[-1, 1]),
                "curve": curve.tolist(),
            }
    return found


def summary_sheet(summaries: Sequence[dict[str, Any]], counting: str) -> Table:
    """Lay out the router, what it loses, and what others would reach."""
    used = {key: title for key, title in _LINES.items() if all(key in found for found in summaries)}
    rows = []
    for found in summaries:
        regret, router = found["regret"], found["router"]
        others = [
            _shown(found[key][what])
            for key in used
            for what in ("accuracy_at_router_cost", "cost_at_router_accuracy")
        ]
        rows.append(
            (
                found["benchmark"],
                str(found["questions"]),
                f"{router['accuracy']:.2f}",
                f"{router['cost']:.2f}",
                *others,
                _with_interval(regret["accuracy"], regret["accuracy_interval"]),
                _with_interval(regret["cost"], regret["cost_interval"]),
                f"{found['solved']:.1f}",
                f"{found['solved_at_least_cost']:.1f}",
            )
        )
    pair = ("accuracy at the router's FLOPs", "FLOPs at the router's accuracy")
    return Table(
        title="Routing oracle: what a router could reach with this checkpoint",
        groups=(
            ("", ("benchmark", "questions")),
            ("router", ("accuracy", "FLOPs")),
            *((title, pair) for title in used.values()),
            ("regret against the oracle", ("accuracy", "FLOPs")),
            ("of the solvable", ("solved", "at least cost")),
        ),
        rows=tuple(rows),
        notes=(
            f"percent; FLOPs: share of dense ({_COUNTINGS[counting]}); accuracy: mean score of a question, "
            "so for POPE not its F1; intervals: 95 %, over questions",
            "oracle: the best route per question, chosen with the right answers at hand, so that luck "
            "counts: an upper bound. by kind: the best route per kind of question. one route for all: "
            "constant routes, or a mixture of two by chance. All are chosen on these very questions",
            "of the solvable: of the questions that some route answers, those that the router answers as "
            "well, and those on a route as cheap as any that does",
        ),
    )


def route_sheet(summary: dict[str, Any]) -> Table:
    """List the constant routes of one benchmark, cheapest first."""
    listed = sorted(summary["routes"].items(), key=lambda item: (item[1]["cost"], item[0]))
    return Table(
        title=f"Every route forced on all questions: {summary['benchmark']}",
        groups=(("", ("route", "FLOPs", "accuracy")),),
        rows=tuple((name, f"{at['cost']:.2f}", f"{at['accuracy']:.2f}") for name, at in listed),
    )


def _shown(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.2f}"


def _with_interval(value: float, bounds: Interval) -> str:
    return f"{value:.2f} [{bounds[0]:.2f}, {bounds[1]:.2f}]"


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, read the runs, write everything."""
    parser = argparse.ArgumentParser(prog="python -m dpn.analysis.oracle", description=__doc__)
    parser.add_argument("folder", type=Path, help="--output_dir of llava.eval.oracle")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--counting", choices=_COUNTINGS, default="paper", help="what FLOPs count")
    parser.add_argument("--samples", type=int, default=2000, help="replicates of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    arguments = parser.parse_args(words)
    try:
        oracles = load_oracles(arguments.folder, arguments.counting)
    except ValueError as error:
        sys.exit(f"dpn.analysis.oracle: {error}")
    summaries = [summarise(oracle, arguments.samples, arguments.seed) for oracle in oracles]
    sheets = [summary_sheet(summaries, arguments.counting), *map(route_sheet, summaries)]
    output: Path = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    (output / "oracle.md").write_text("\n".join(map(markdown, sheets)), encoding="utf-8")
    data = {"counting": arguments.counting, "benchmarks": summaries}
    (output / "oracle.json").write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draw_oracles(summaries, output / "oracle.png")
    sys.stdout.write(f"{markdown(sheets[0])}\nwrote {output}/oracle.md, oracle.json, oracle.png\n")


if __name__ == "__main__":
    main()
