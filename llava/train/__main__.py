"""Train LLaVA: `python -m llava.train --help`."""

import sys

from llava.train.train import prepare, train

if __name__ == "__main__":
    try:
        job = prepare(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"python -m llava.train: {error}")
    train(job)
