"""`python -m llava.toy --output playground/toy --seed 0`: write the small world."""

import argparse
import dataclasses
import time
from pathlib import Path

from llava.toy.generate import Sizes, generate


def main() -> None:
    """Parse the command line and write the world."""
    parser = argparse.ArgumentParser(prog="python -m llava.toy", description="Write the small world.")
    parser.add_argument("--output", type=Path, default=Path("playground/toy"), help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="changes images, questions and their order")
    for field in dataclasses.fields(Sizes):
        name = field.name.replace("_", "-")
        parser.add_argument(
            f"--{name}", f"--{field.name}", type=int, default=field.default, help=f"number of {name}"
        )
    parser.add_argument("--photos", action="store_true", help="add real photographs from installed packages")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        sizes = Sizes(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Sizes)})
        generate(arguments.output, seed=arguments.seed, sizes=sizes, photos=arguments.photos)
    except ValueError as error:
        parser.error(str(error))
    print(f"wrote {arguments.output} in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
