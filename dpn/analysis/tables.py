"""The paper's Tables 1 to 4, our own runs beside its numbers: Markdown, LaTeX, a picture and JSON.

python -m dpn.analysis.tables table1 --output DIR                                the paper's numbers alone
python -m dpn.analysis.tables table1 --runs llava=results/dense dpn=results/dpn --output DIR
python -m dpn.analysis.tables table3 --runs static-2x2=A,B "dpn=runs/dpn/seed*" "+policy=C,D" --output DIR

A folder is an --output_dir of llava.eval; a row's folders are its seeds (docs/tables.md).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dpn.analysis.arms import load_arms
from dpn.analysis.comparison import Comparison
from dpn.analysis.paper import TABLES
from dpn.analysis.picture import draw
from dpn.analysis.render import latex, markdown
from dpn.analysis.resampling import Draws
from dpn.analysis.sheets import main_sheet, test_sheet


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, read the runs, write everything."""
    arguments = _parser().parse_args(words)
    table = TABLES[arguments.table]
    fillable = [row.key for row in table.rows if not row.is_reported]
    reported = [row.key for row in table.rows if row.is_reported]
    try:
        comparison = Comparison(
            table=table,
            arms=tuple(load_arms(arguments.runs, fillable, reported)),
            draws=Draws(arguments.samples, arguments.seed),
            is_small_world=arguments.small_world,
            wanted_rows=tuple(arguments.rows),
            wanted_columns=tuple(arguments.columns),
            baseline=arguments.baseline,
        )
        if comparison.is_small_world and not comparison.arms:
            raise ValueError("--small_world shows nothing but runs: name some with --runs")
        written = write(comparison, arguments.output)
    except ValueError as error:
        sys.exit(f"dpn.analysis.tables: {error}")
    except OSError as error:
        sys.exit(f"dpn.analysis.tables: can't write to {arguments.output} ({error.strerror})")
    sys.stdout.write("\n".join(["", *(f"wrote {path}" for path in written)]) + "\n")


def write(comparison: Comparison, output: Path) -> list[Path]:
    """Write <table>.md, .tex, .png and .json, print the Markdown, return the paths."""
    main_table, tests = main_sheet(comparison), test_sheet(comparison)
    tables = [main_table, *([tests] if tests.rows else [])]
    output.mkdir(parents=True, exist_ok=True)
    stem = output / comparison.table.name
    paths = [stem.with_suffix(suffix) for suffix in (".md", ".tex", ".json", ".png")]
    text = "\n".join(map(markdown, tables))
    paths[0].write_text(text, encoding="utf-8")
    paths[1].write_text("\n".join(map(latex, tables)), encoding="utf-8")
    paths[2].write_text(json.dumps(comparison.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draw(main_table, paths[3])
    sys.stdout.write(text)
    return paths


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dpn.analysis.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="ROW=FOLDER[,FOLDER...]",
        help="a row of the table, or +NAME for one of your own, and its result folders, one per seed",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--baseline", default="", help="row to test against (default: the table's own)")
    parser.add_argument("--rows", nargs="+", default=[], help="the paper's rows to show (default: all)")
    parser.add_argument("--columns", nargs="+", default=[], help="columns to show (default: all)")
    parser.add_argument(
        "--small_world",
        "--small-world",
        action="store_true",
        help="the runs are about the small world: without the paper's numbers, only what was run",
    )
    parser.add_argument("--samples", type=int, default=2000, help="replicates of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    return parser


if __name__ == "__main__":
    main()
