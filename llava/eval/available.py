"""Which benchmarks can be run with the data that is there.

python -m llava.eval.available --data_root playground/data/eval

Their names go to stdout, one per line; the others, with the reason and where to get the data, to stderr.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.eval.benchmark import Benchmark
from llava.eval.benchmarks import BENCHMARKS
from llava.eval.calibration_questions import image_is_missing
from llava.eval.reading import MissingDataError


def why_not(benchmark: Benchmark, root: Path) -> str | None:
    """Return why a benchmark can't be run, None where it can."""
    try:
        questions = benchmark.questions(root)
    except MissingDataError as error:
        return str(error)
    except ValueError as error:
        return f"broken: {error}"
    absent = [question for question in questions if image_is_missing(question)]
    if absent:
        return f"{len(absent)} of {len(questions)} images are missing, for example {absent[0].image}"
    return None


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, look, and say."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.available", description=__doc__)
    parser.add_argument("--data_root", "--data-root", type=Path, default=Path("playground/data/eval"))
    root = parser.parse_args(words).data_root
    reasons = {name: why_not(benchmark, root) for name, benchmark in BENCHMARKS.items()}
    for name, reason in reasons.items():
        if reason is None:
            sys.stdout.write(f"{name}\n")
        else:
            sys.stderr.write(f"skipped {name}: {reason}; scripts/data/{name}.sh says where to get it\n")
    if None not in reasons.values():
        sys.exit(f"llava.eval.available: no benchmark's data lies in {root}")


if __name__ == "__main__":
    main()
