"""Time prefill, decoding or training against transformers' LLaVA and against the FLOPs.

python -m llava.bench prefill                      # the figures of docs/benchmark.md, on this CPU
python -m llava.bench prefill --preset 7b --batch 1 8 32 --tower True    # on a GPU
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llava.bench.arguments import MODES, BenchArguments, parse
from llava.bench.cases import run_case
from llava.bench.plot import draw
from llava.bench.report import markdown, summarise
from llava.bench.variants import make_variants


def main(words: Sequence[str] | None = None) -> None:
    """Measure; what is wrong with the flags ends in one line, not in a traceback."""
    try:
        mode, arguments = parse(words)
        run(mode, arguments)
    except ValueError as error:
        sys.exit(f"llava.bench: {error}")


def run(mode: str, arguments: BenchArguments) -> dict[str, Any]:
    """Time every case of a mode and write MODE.json, MODE.md and MODE.png after each."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    variants = make_variants(arguments, arguments.shape, mode)
    answers = {"prefill": [None], "decode": arguments.answers, "train": [None]}[mode]
    cases, summary = [], {}
    for size in arguments.batch or MODES[mode]:
        for answer in answers:
            cases.append(run_case(variants, arguments, mode, size=size, answer=answer))
            summary = summarise(mode, arguments, cases)
            (folder / f"{mode}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
            (folder / f"{mode}.md").write_text(markdown(summary), encoding="utf-8")
            draw(summary, folder / f"{mode}.png")
    print(markdown(summary))
    return summary


if __name__ == "__main__":
    main()
