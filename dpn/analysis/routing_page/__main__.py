"""Show what was routed how, answer by answer: one HTML file that needs no server and no network.

python -m dpn.analysis.routing_page results/policy --image_folder playground/data/eval --output page.html
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dpn.analysis.routing_page.answers import FITS, read_sources
from dpn.analysis.routing_page.page import render
from dpn.analysis.routing_page.pictures import Pictures
from dpn.analysis.routing_page.questions import Questions
from dpn.analysis.routing_page.samples import build_data


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line and write the page; what is wrong ends in one line, not in a traceback."""
    arguments = _parser().parse_args(words)
    try:
        _require_writable(arguments.output)
        data = build_data(
            read_sources(arguments.answers),
            Pictures(arguments.image_folder, arguments.image_size),
            Questions(arguments.questions),
            max_samples=arguments.max_samples,
            aspect_ratio=arguments.image_aspect_ratio,
        )
        _write(arguments.output, render(data))
    except (ValueError, OSError) as error:
        sys.exit(f"dpn.analysis.routing_page: {error}")
    for source in data["sources"]:
        if source["unrouted"]:
            print(f"{source['benchmark']}: {source['unrouted']} answers without a route are left out")
    size = arguments.output.stat().st_size / 1e6
    count = f"{len(data['samples'])} answers about {len(data['images'])} images"
    print(f"wrote {arguments.output}: {count}, {size:.1f} MB")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dpn.analysis.routing_page",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "answers", nargs="+", help="answers.jsonl, or a result folder of llava.eval; NAME=PATH names the run"
    )
    parser.add_argument(
        "--image_folder", "--image-folder", type=Path, required=True, help="--data_root of the evaluation"
    )
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")
    parser.add_argument(
        "--questions",
        type=Path,
        nargs="+",
        default=[],
        help="question files (.jsonl, MMBench's .tsv) for what answer lines lack: images, categories, grades",
    )
    parser.add_argument(
        "--max_samples",
        "--max-samples",
        type=_positive,
        help="at most so many answers of every file, evenly spread over its images",
    )
    parser.add_argument(
        "--image_size",
        "--image-size",
        type=_positive,
        default=256,
        help="longer side of the embedded images in pixels (default: 256)",
    )
    parser.add_argument(
        "--image_aspect_ratio",
        "--image-aspect-ratio",
        choices=sorted(FITS),
        help="of the checkpoint, where no scores.json beside the answers names it",
    )
    return parser


def _positive(word: str) -> int:
    """Read a whole number of 1 or more."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {word!r}")
    return int(word)


def _require_writable(output: Path) -> None:
    """Make the page's folder before anything is read, so that a wrong path doesn't cost the work."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        is_folder = output.is_dir()
    except OSError as error:
        raise ValueError(f"can't write --output {output} ({error.strerror})") from error
    if is_folder:
        raise ValueError(f"--output {output} is a folder; name the HTML file to write")


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"can't write --output {output} ({error.strerror})") from error


if __name__ == "__main__":
    main()
