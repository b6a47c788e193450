"""Time prefill, decoding or training against transformers' LLaVA, or methods against each other; and FLOPs.

python -m llava.bench prefill                      # the figures of docs/benchmarking.md, on this CPU
python -m llava.bench prefill --preset 7b --batch 1 8 32 --tower True    # on a GPU
python -m llava.bench train --zero 3 --ranks 2     # under DeepSpeed
python -m llava.bench compare --budgets 0.25 0.5   # dense, DPN and its rivals; flags: compare --help
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llava.bench import ranks
from llava.bench.arguments import MODES, BenchArguments, parse
from llava.bench.cases import run_case
from llava.bench.compare.run import compare
from llava.bench.plot import draw
from llava.bench.report import markdown, summarise
from llava.bench.variants import make_variants


def main(words: Sequence[str] | None = None) -> None:
    """Measure; what is wrong with the flags ends in one line, not in a traceback."""
    given = list(sys.argv[1:] if words is None else words)
    try:
        if given[:1] == ["compare"]:
            compare(given[1:])
            return
        mode, arguments = parse(given)
        if arguments.zero and not ranks.is_rank():
            ranks.launch(given, arguments)
        else:
            run(mode, arguments)
    except ValueError as error:
        sys.exit(f"llava.bench: {error}")


def run(mode: str, arguments: BenchArguments) -> dict[str, Any]:
    """Time every case of a mode and write its files after each."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.zero:
        ranks.connect(arguments)
    variants = None
    answers = {"prefill": [None], "decode": arguments.answers, "train": [None]}[mode]
    cases, summary = [], {}
    for size in arguments.batch or MODES[mode]:
        for answer in answers:
            if variants is None or arguments.zero:  # an engine has taken the last case's models to pieces
                variants = make_variants(arguments, arguments.shape, mode)
            cases.append(run_case(variants, arguments, mode, size=size, answer=answer))
            summary = summarise(mode, arguments, cases)
            if ranks.is_first():
                write(summary, Path(arguments.output))
    if ranks.is_first():
        print(markdown(summary))
    if arguments.zero:
        ranks.leave()
    return summary


def write(summary: dict[str, Any], folder: Path) -> None:
    """Write a summary as MODE.json, MODE.md and MODE.png; with ZeRO the name says its stage."""
    name = summary["mode"] + (f"_zero{summary['zero']}" if summary["zero"] else "")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(markdown(summary), encoding="utf-8")
    draw(summary, folder / f"{name}.png")


if __name__ == "__main__":
    main()
