"""The fields of compare.json: what each is, and whether a file has them.

`NAME` ends with the version, which goes up whenever a field is removed or changes its meaning. Every field is
always there, and there are no others. Seconds are on the clock of `contract.clock`; FLOPs are multiply-adds,
each counted once; "dense" is the row of that name in the same case.
"""

import json
from pathlib import Path
from typing import Any

from llava.bench.compare.fields import Field, ListOf, MapOf, integer, number, problems, text
from llava.bench.shapes import SIZES

NAME = "llava.bench.compare/1"
_RATIO = {
    "median": number("median over the rounds of the ratio to dense within a round"),
    "low": number("its first quartile"),
    "high": number("its third quartile"),
}
_TIMING = {
    "seconds": number("median over the rounds"),
    "low": number("first quartile"),
    "high": number("third quartile"),
    "over_dense": _RATIO,
}
_SELECT = _TIMING | {
    "over_dense": {key: Field("number", f"{one.what}: of its end-to-end") for key, one in _RATIO.items()}
}
_PHASES = ("encode", "prefill", "decode", "end_to_end")
_COUNTINGS = {
    "paper": "Eq. 8: visual tokens, two FFN matrices",
    "full": "all tokens, three FFN matrices, deciding",
    "measured": "half of what torch.utils.flop_counter saw",
}


def _countings(what: str, *names: str) -> dict[str, Field]:
    return {name: number(f"{what}; {_COUNTINGS[name]}") for name in names or _COUNTINGS}


_ROW = {
    "name": text("unique in its case: dense, METHOD@BUDGET, or the settings as given"),
    "method": text("name of the method"),
    "where": text("where it acts: nowhere (dense), decoder, projector, or front (in front of the projector)"),
    "attention": text("transformers' name of the decoder's attention implementation"),
    "settings": ListOf(text("FIELD=VALUE")),
    "budget": Field(
        "number or null", "share of the dense visual FLOPs asked for; null where settings were given"
    ),
    "share_computed": number("that share, computed from the settings beforehand"),
    "share": number("that share, from the tokens of the run"),
    "visual_tokens": ListOf(number("visual tokens in a decoder layer, mean over the batch")),
    "tokens": ListOf(number("all tokens in a decoder layer, mean over the batch")),
    "flops": {
        "encode": number("of tower and projector for the batch, measured"),
        "prefill": _countings("of the decoder's prefill for the batch, without the head"),
    },
    "flops_share": _countings("prefill relative to plain LLaVA's decoder"),
    "attention_not_counted": ListOf(text("attention kernel that ran and that `measured` lacks")),
    "phases": {**dict.fromkeys(_PHASES, _TIMING), "select": _SELECT},
    "select_parts": {
        "front": number("select's seconds in encode: by how much it differs from dense's, median"),
        "deciding": number("select's seconds in prefill: between marks, median"),
    },
    "step_seconds": Field("number or null", "median time between two tokens; null for answers of one"),
    "samples_per_second": number("batch over end_to_end.seconds"),
    "time_over_flops": _countings("prefill.over_dense.median over flops_share"),
    "kv_bytes": integer("keys and values of the batch after the prefill"),
    "kv_over_dense": number("the same relative to dense"),
    "peak_bytes": integer("most bytes allocated in a run beyond what was held before it"),
    "peak_over_dense": number("the same relative to dense"),
    "rounds": MapOf(ListOf(number("seconds of a phase or part in every round, in their order"))),
}
SCHEMA: dict[str, Any] = {
    "schema": text("NAME"),
    "command": text("what was run"),
    "contract": {
        "device": text("name of the GPU or processor"),
        "dtype": text("of weights and activations"),
        "threads": integer("threads of torch on the CPU"),
        "clock": text("wall, or cpu: processor time of all threads"),
        "marks": text("what phases are read from"),
        "rounds": integer("timed runs of every row"),
        "warmup": integer("untimed runs before, beside the one that peak_bytes is read in"),
        "seed": integer("of weights, inputs and the order of runs"),
        "in_the_clock": {name: text("what it spans") for name in (*_PHASES, "select")},
        "flops_unit": text("multiply-adds"),
    },
    "versions": MapOf(text("version of a package")),
    "load_average": {
        name: number(f"the machine's, over a minute, at the {name}") for name in ("start", "end")
    },
    "preset": text("sizes that the flags started from, or checkpoint"),
    "weights": text("random, or the checkpoint"),
    "shape": {
        **{name: integer("size of model or prompt (llava/bench/shapes.py)") for name in (*SIZES, "visual")},
        "dpe_layers": ListOf(integer("layer in front of which methods with places reduce, unless given")),
    },
    "parameters": integer("of the dense model, tower and projector included"),
    "budgets": ListOf(number("share of the dense visual FLOPs that methods were set to")),
    "tolerance": number("how far from its budget a share may lie"),
    "missed": ListOf(
        {
            "method": text("that can't be set to a budget"),
            "budget": number("that it missed, and that wasn't timed therefore"),
            "nearest": number("share that comes nearest"),
            "settings": ListOf(text("FIELD=VALUE that give it")),
            "batch": Field("integer or null", "batch it was seen on; null where it was computed beforehand"),
        }
    ),
    "cases": ListOf(
        {
            "batch": integer("prompts, of one image each"),
            "answer": integer("tokens of every answer"),
            "rows": ListOf(_ROW),
        }
    ),
}


def check(document: Any, source: str) -> None:
    """Refuse what isn't a comparison.

    Raises:
        ValueError: naming the source and the first fields that are missing, unknown or of another kind.
    """
    found = document.get("schema") if isinstance(document, dict) else None
    if found != NAME:
        raise ValueError(
            f"{source} has the schema {found!r}, expected {NAME!r}: it is no result of `llava.bench "
            f"compare`, or another version's; measure anew"
        )
    wrong = problems(document, SCHEMA)
    if not wrong:
        wrong = [
            f"cases[{index}].rows: none of them is dense"
            for index, case in enumerate(document["cases"])
            if "dense" not in [row["name"] for row in case["rows"]]
        ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{source} doesn't follow the schema {NAME}: {'; '.join(wrong[:5])}{more}")


def read(path: Path) -> dict[str, Any]:
    """Read a compare.json.

    Raises:
        ValueError: there is no such file, or it isn't a comparison.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} can't be read as JSON: {error}") from error
    check(document, str(path))
    return document
