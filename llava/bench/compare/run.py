"""A comparison from its flags to its files: compare.json, compare.md, compare.png."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llava.bench.compare.arguments import CompareArguments, parse
from llava.bench.compare.case import Prepared, run_case
from llava.bench.compare.contenders import Contender, Missed, build_contenders, is_met, wanted
from llava.bench.compare.counting import count
from llava.bench.compare.plot import draw
from llava.bench.compare.report import markdown
from llava.bench.compare.schema import NAME, check, read
from llava.bench.inputs import Batch, make_batch
from llava.bench.report import device_name, versions
from llava.model.llava_llama import LlavaLlamaForCausalLM

IN_THE_CLOCK = {
    "end_to_end": "generate() from ids and pixels on the device to the last id: all that follows",
    "encode": "from its call to the decoder's first: vision tower, projector, merging into the prompt",
    "prefill": "from there to the first token's logits: the decoder over the prompts, the head for one row",
    "decode": "from there to the end: choosing tokens, one pass for each after the first",
    "select": "what the method itself costs, a part of encode and prefill: inside the decoder the calls of "
    "its reducer and the making of scores, between marks; in front of it encode less dense's in the same "
    "round, for projectors without the tower",
}


def compare(words: Sequence[str]) -> dict[str, Any]:
    """Run `python -m llava.bench compare` with the flags behind that.

    Raises:
        ValueError: flags or settings that can't be, models that don't do as they should, or, with --render, a
            file that isn't a comparison's.
    """
    arguments = parse(words)
    if arguments.render is not None:
        document = read(Path(arguments.render))
        render(document, Path(arguments.render).parent)
    else:
        document = _measured(arguments, words)
    print(markdown(document))  # noqa: T201 - the command's output
    return document


def _measured(arguments: CompareArguments, words: Sequence[str]) -> dict[str, Any]:
    """Time everything, batch after batch; what there is is written after every case."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    found, missed = wanted(arguments)
    contenders = list(build_contenders(found, arguments))
    dense = contenders[0].model
    document = _head(arguments, words, missed, dense)
    for size in arguments.batches:
        batch = make_batch(dense, arguments.shape, size=size, seed=arguments.seed, has_tower=True)
        prepared = [_prepare(contender, batch) for contender in contenders]
        kept = [one for one in prepared if _is_on_budget(one, arguments)]
        document["missed"] += [_missed(one, size) for one in prepared if one not in kept]
        for answer in arguments.answers:
            document["cases"].append(run_case(kept, batch, arguments, answer))
            document["load_average"]["end"] = os.getloadavg()[0]
            write(document, Path(arguments.output))
    return document


def _prepare(contender: Contender, batch: Batch) -> Prepared:
    routes = contender.teach(batch)
    return Prepared(contender, count(contender, batch, routes), routes)


def _is_on_budget(one: Prepared, arguments: CompareArguments) -> bool:
    budget = one.contender.budget
    return budget is None or is_met(one.facts.share, budget, arguments.tolerance)


def _missed(one: Prepared, size: int) -> dict[str, Any]:
    """Report a method that kept another share of a batch than was computed, which depends on its images."""
    contender = one.contender
    assert contender.budget is not None
    words = list(contender.setting.words)
    return Missed(contender.setting.method, contender.budget, one.facts.share, words, size)._asdict()


def _head(
    arguments: CompareArguments,
    words: Sequence[str],
    missed: Sequence[Missed],
    dense: LlavaLlamaForCausalLM,
) -> dict[str, Any]:
    """Say what a reader needs to judge or to repeat the run."""
    shape = arguments.shape
    is_cuda = arguments.torch_device.type == "cuda"
    return {
        "schema": NAME,
        "command": shlex.join(["python", "-m", "llava.bench", "compare", *words]),
        "contract": {
            "device": device_name(arguments.torch_device),
            "dtype": str(arguments.torch_dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "clock": arguments.clock,
            "marks": "events of the device" if is_cuda else f"{arguments.clock} clock of the process",
            "rounds": arguments.rounds,
            "warmup": arguments.warmup,
            "seed": arguments.seed,
            "in_the_clock": IN_THE_CLOCK,
            "flops_unit": "multiply-adds",
        },
        "versions": versions(),
        "load_average": {"start": os.getloadavg()[0], "end": os.getloadavg()[0]},
        "preset": arguments.preset if arguments.model_path is None else "checkpoint",
        "weights": arguments.model_path or "random",
        "shape": vars(shape) | {"visual": shape.visual, "dpe_layers": list(shape.dpe_layers)},
        "parameters": sum(value.numel() for value in dense.parameters()),
        "budgets": list(arguments.budgets),
        "tolerance": arguments.tolerance,
        "missed": [one._asdict() for one in missed],
        "cases": [],
    }


def write(document: dict[str, Any], folder: Path) -> None:
    """Write what there is of a comparison; it follows the schema or isn't written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compare.json"
    check(document, str(path))
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    render(document, folder)


def render(document: dict[str, Any], folder: Path) -> None:
    """Write the table and the figure of a comparison."""
    (folder / "compare.md").write_text(markdown(document), encoding="utf-8")
    draw(document, folder / "compare.png")
