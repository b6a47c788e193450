"""Train LLaVA: `python -m llava.train --help`."""

import sys

from llava.train import estimate
from llava.train.arguments import asks_for_estimate
from llava.train.train import prepare, run


def main(argv: list[str]) -> None:
    """Train; what is wrong with flags, files or checkpoints ends in one line, not in a traceback."""
    try:
        if asks_for_estimate(argv):
            sys.stdout.write(f"{estimate.main(argv)}\n")
        else:
            run(prepare(argv))
    except ValueError as error:
        sys.exit(f"python -m llava.train: {_message(error)}")


def _message(error: ValueError) -> str:
    """Return what an error says; one from a data worker carries the worker's traceback in front of it."""
    text = str(error)
    return text.rpartition("\nValueError: ")[2].strip() if text.startswith("Caught ValueError") else text


if __name__ == "__main__":
    main(sys.argv[1:])
