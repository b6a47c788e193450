"""Collect runs into one table and three figures.

python -m dpn.analysis.summary dense=results/dense policy=results/policy --output results/quickstart
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dpn.analysis.examples import draw_examples
from dpn.analysis.results import Run, load_runs
from dpn.analysis.routes import draw_routes, shares_by_grade
from dpn.analysis.run_table import markdown, summarise
from dpn.analysis.tradeoff import draw_tradeoff


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, read the runs, write everything."""
    parser = argparse.ArgumentParser(prog="python -m dpn.analysis.summary", description=__doc__)
    parser.add_argument("runs", nargs="+", help="result folders of llava.eval, as DIR or NAME=DIR")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--reference", help="run that times are compared with (default: the first dense one)")
    parser.add_argument(
        "--data_root", "--data-root", type=Path, help="where the images lie, for examples.png"
    )
    parser.add_argument(
        "--examples_of", "--examples-of", help="run of examples.png (default: the last router)"
    )
    arguments = parser.parse_args(words)
    try:
        runs = load_runs(arguments.runs)
        name = arguments.reference
        reference = _named(runs, name) if name else [*_of_kind(runs, "dense"), *runs][0]
        written = _write_tables(runs, reference, arguments.output)
        written += _draw(runs, arguments)
    except ValueError as error:
        sys.exit(f"dpn.analysis.summary: {error}")
    except OSError as error:
        sys.exit(f"dpn.analysis.summary: can't write to {arguments.output} ({error.strerror})")
    sys.stdout.write("\n".join(["", *written]) + "\n")


def _named(runs: Sequence[Run], name: str) -> Run:
    by_name = {run.name: run for run in runs}
    if name not in by_name:
        raise ValueError(f"no run is called {name!r}; there are {', '.join(by_name)}")
    return by_name[name]


def _of_kind(runs: Sequence[Run], kind: str) -> list[Run]:
    return [run for run in runs if run.kind == kind]


def _write_tables(runs: Sequence[Run], reference: Run, output: Path) -> list[str]:
    summary = summarise(runs, reference)
    for row, run in zip(summary["runs"], runs, strict=True):
        stages = max(len(answer["route"]) for answer in run.answers)
        row["route_shares"] = [shares_by_grade(run, stage) for stage in range(stages)]
    output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(summary, indent=2, allow_nan=False)
    (output / "results.json").write_text(text + "\n", encoding="utf-8")
    (output / "table.md").write_text(table := markdown(summary), encoding="utf-8")
    sys.stdout.write(table)
    return [f"wrote {output / name}" for name in ("results.json", "table.md")]


def _draw(runs: Sequence[Run], arguments: argparse.Namespace) -> list[str]:
    """Draw what can be drawn and say what can't."""
    output, routed = arguments.output, _of_kind(runs, "router")
    draw_tradeoff(runs, output / "tradeoff.png")
    messages = [f"wrote {output / 'tradeoff.png'}"]
    if routed:
        draw_routes(routed, output / "routes.png")
        messages.append(f"wrote {output / 'routes.png'}")
    else:
        messages.append("no routes.png: no run has a router")
    shown = [_named(runs, arguments.examples_of)] if arguments.examples_of else routed[-1:]
    if not shown:
        messages.append("no examples.png: no run has a router; --examples_of names another run")
    elif arguments.data_root is None:
        messages.append("no examples.png: --data_root says where the images lie")
    else:
        draw_examples(shown[0], arguments.data_root, output / "examples.png")
        messages.append(f"wrote {output / 'examples.png'}")
    return messages


if __name__ == "__main__":
    main()
