"""The paper's Fig. 3 and 4 from our own runs: pictures, Markdown and LaTeX.

python -m dpn.analysis.figures fig3 --runs dpn=results/a,results/b "our policy=results/c" --output DIR
python -m dpn.analysis.figures fig4 --runs dpn=results/a --data_root playground/data/eval --output DIR

fig3: which experts were chosen, per benchmark and grade. fig4: routes drawn on images, and one image with a
harder and an easier question (docs/tables.md).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dpn.analysis.arms import Arm, load_arms
from dpn.analysis.examples import choose_by_route, draw_examples
from dpn.analysis.pairs import choose_pairs, draw_pairs, named_pairs, pair_sheet
from dpn.analysis.render import Table, latex, markdown
from dpn.analysis.shares import draw_fig3, share_sheets, to_dict

_SMALL_WORLD = "Small world. "


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, read the runs, write the figure."""
    arguments = _parser().parse_args(words)
    try:
        arms = load_arms(arguments.runs)
        written = (_fig3 if arguments.figure == "fig3" else _fig4)(arms, arguments)
    except ValueError as error:
        sys.exit(f"dpn.analysis.figures: {error}")
    except OSError as error:
        sys.exit(f"dpn.analysis.figures: can't write to {arguments.output} ({error.strerror})")
    sys.stdout.write("\n".join(["", *(f"wrote {path}" for path in written)]) + "\n")


def _fig3(arms: Sequence[Arm], arguments: argparse.Namespace) -> list[Path]:
    mark = _SMALL_WORLD if arguments.small_world else ""
    sheets = share_sheets(arms, mark=mark)
    written = _write_sheets(arguments.output / "fig3", sheets)
    picture, data = arguments.output / "fig3.png", arguments.output / "fig3.json"
    draw_fig3(arms, picture, mark=mark)
    data.write_text(json.dumps(to_dict(arms), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return [*written, data, picture]


def _fig4(arms: Sequence[Arm], arguments: argparse.Namespace) -> list[Path]:
    if len(arms) != 1 or len(arms[0].runs) != 1:
        raise ValueError("fig4 shows single answers: give one run with one folder")
    if arguments.data_root is None:
        raise ValueError("fig4 needs --data_root, where the images lie")
    (run,) = arms[0].runs
    pairs = named_pairs(run, arguments.pairs) if arguments.pairs else choose_pairs(run)
    mark = _SMALL_WORLD if arguments.small_world else ""
    written = _write_sheets(arguments.output / "fig4", [pair_sheet(pairs, f"{mark}{run.name}")])
    routes, questions = arguments.output / "fig4_routes.png", arguments.output / "fig4_questions.png"
    examples = choose_by_route(run)
    title = "the routes taken most often, one question each (not chosen by hand)"
    draw_examples(run, arguments.data_root, routes, examples=examples, title=f"{title}. {mark}".rstrip())
    draw_pairs(pairs, f"{mark}{run.name}", arguments.data_root, questions)
    return [*written, routes, questions]


def _write_sheets(stem: Path, sheets: Sequence[Table]) -> list[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(".md"), stem.with_suffix(".tex")]
    paths[0].write_text(text := "\n".join(map(markdown, sheets)), encoding="utf-8")
    paths[1].write_text("\n".join(map(latex, sheets)), encoding="utf-8")
    sys.stdout.write(text)
    return paths


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dpn.analysis.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figure", choices=("fig3", "fig4"))
    parser.add_argument(
        "--runs",
        nargs="+",
        required=True,
        metavar="NAME=FOLDER[,FOLDER...]",
        help="result folders of llava.eval, one per seed",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--data_root", "--data-root", type=Path, help="fig4: where the images lie")
    parser.add_argument(
        "--pairs",
        nargs="+",
        default=[],
        metavar="BENCHMARK:HARD_ID,EASY_ID",
        help="fig4: questions to set side by side (default: of different grades, evenly spread)",
    )
    parser.add_argument(
        "--small_world", "--small-world", action="store_true", help="say that this is the small world"
    )
    return parser


if __name__ == "__main__":
    main()
