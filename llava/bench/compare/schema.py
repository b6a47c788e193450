"""The fields of compare.json: what each is, and whether a document has them.

`NAME` ends with the version, which goes up whenever a field is removed or changes its meaning. The list in
docs/compare_schema.md is written from here: `python -m llava.bench.compare.schema > docs/compare_schema.md`.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NAME = "llava.bench.compare/1"
_HEAD = """\
# The fields of compare.json

Schema `{name}`, written by `python -m llava.bench compare`. `[]` is every element of a list, `{{}}` every entry of an object
whose keys aren't fixed. Every field is always there, and there are no others. Seconds are on the clock of `contract.clock`;
FLOPs are multiply-adds, each counted once; "dense" is the row of that name in the same case. What is in the clock:
[benchmarking.md](benchmarking.md).

| field | type | what |
|---|---|---|
"""


@dataclass(frozen=True)
class Field:
    """One value."""

    kind: str
    """text, integer, number or null, joined by "or" where it may be several."""
    what: str
    """What it is, with its unit."""


@dataclass(frozen=True)
class ListOf:
    """Any number of the same."""

    item: Any


@dataclass(frozen=True)
class MapOf:
    """An object whose keys aren't fixed."""

    item: Any


def _text(what: str) -> Field:
    return Field("text", what)


def _number(what: str) -> Field:
    return Field("number", what)


def _integer(what: str) -> Field:
    return Field("integer", what)


_RATIO = {
    "median": _number("median over the rounds of the ratio to dense within a round"),
    "low": _number("its first quartile"),
    "high": _number("its third quartile"),
}
_TIMING = {
    "seconds": _number("median over the rounds"),
    "low": _number("first quartile"),
    "high": _number("third quartile"),
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
    return {name: _number(f"{what}; {_COUNTINGS[name]}") for name in names or _COUNTINGS}


_ROW = {
    "name": _text("unique in its case: dense, METHOD@BUDGET, or the settings as given"),
    "method": _text("name of the method"),
    "where": _text(
        "where it acts: nowhere (dense), decoder, projector, or front (in front of the projector)"
    ),
    "attention": _text("transformers' name of the decoder's attention implementation"),
    "settings": ListOf(_text("FIELD=VALUE")),
    "budget": Field(
        "number or null", "share of the dense visual FLOPs asked for; null where settings were given"
    ),
    "share_computed": _number("that share, computed from the settings beforehand"),
    "share": _number("that share, from the tokens of the run"),
    "visual_tokens": ListOf(_number("visual tokens in a decoder layer, mean over the batch")),
    "tokens": ListOf(_number("all tokens in a decoder layer, mean over the batch")),
    "flops": {
        "encode": _number("of tower and projector for the batch, measured"),
        "prefill": _countings("of the decoder's prefill for the batch, without the head"),
    },
    "flops_share": _countings("prefill relative to plain LLaVA's decoder"),
    "attention_not_counted": ListOf(_text("attention kernel that ran and that `measured` lacks")),
    "phases": {**dict.fromkeys(_PHASES, _TIMING), "select": _SELECT},
    "select_parts": {
        "front": _number("select's seconds in encode: by how much it differs from dense's, median"),
        "deciding": _number("select's seconds in prefill: between marks, median"),
    },
    "step_seconds": Field("number or null", "median time between two tokens; null for answers of one"),
    "samples_per_second": _number("batch over end_to_end.seconds"),
    "time_over_flops": _countings("prefill.over_dense.median over flops_share"),
    "kv_bytes": _integer("keys and values of the batch after the prefill"),
    "kv_over_dense": _number("the same relative to dense"),
    "peak_bytes": _integer("most bytes allocated in a run beyond what was held before it"),
    "peak_over_dense": _number("the same relative to dense"),
    "rounds": MapOf(ListOf(_number("seconds of a phase or part in every round, in their order"))),
}
SCHEMA: dict[str, Any] = {
    "schema": _text("name and version of this schema"),
    "command": _text("what was run"),
    "contract": {
        "device": _text("name of the GPU or processor"),
        "dtype": _text("of weights and activations"),
        "threads": _integer("threads of torch on the CPU"),
        "clock": _text("wall, or cpu: processor time of all threads"),
        "marks": _text("what phases are read from"),
        "rounds": _integer("timed runs of every row"),
        "warmup": _integer("untimed runs before, beside the one that peak_bytes is read in"),
        "seed": _integer("of weights, inputs and the order of runs"),
        "in_the_clock": {name: _text("what it spans") for name in (*_PHASES, "select")},
        "flops_unit": _text("multiply-adds"),
    },
    "versions": MapOf(_text("version of a package")),
    "load_average": {
        name: _number(f"the machine's, over a minute, at the {name}") for name in ("start", "end")
    },
    "preset": _text("sizes that the flags started from"),
    "shape": {
        **{
            name: _integer("size of model or prompt (llava/bench/shapes.py)")
            for name in (
                "hidden_size",
                "intermediate_size",
                "num_layers",
                "num_heads",
                "num_kv_heads",
                "vocab_size",
                "grid",
                "text",
                "tower_width",
                "tower_layers",
                "visual",
            )
        },
        "dpe_layers": ListOf(_integer("layer in front of which methods with places reduce, unless given")),
    },
    "parameters": _integer("of the dense model, tower and projector included"),
    "budgets": ListOf(_number("share of the dense visual FLOPs that methods were set to")),
    "tolerance": _number("how far from its budget a share may lie"),
    "missed": ListOf(
        {
            "method": _text("that can't be set to a budget"),
            "budget": _number("that it missed, and that wasn't timed therefore"),
            "nearest": _number("share that comes nearest"),
            "settings": ListOf(_text("FIELD=VALUE that give it")),
            "batch": Field("integer or null", "batch it was seen on; null where it was computed beforehand"),
        }
    ),
    "cases": ListOf(
        {
            "batch": _integer("prompts, of one image each"),
            "answer": _integer("tokens of every answer"),
            "rows": ListOf(_ROW),
        }
    ),
    "accuracy": ListOf(
        {
            "method": _text("of --accuracy"),
            "folder": _text("of --accuracy"),
            "protocols": MapOf(_text("protocol of a benchmark")),
            "accuracy": _number("mean over benchmarks, percent; MME's points over 20"),
            "flops_share": _countings("mean over benchmarks", "paper", "full"),
        }
    ),
}


def problems(document: Any, spec: Any = None, path: str = "") -> list[str]:
    """List where a document differs from the schema; [] where it follows it."""
    spec = SCHEMA if spec is None else spec
    if isinstance(spec, Field):
        return [] if _fits(document, spec.kind) else [f"{path}: expected {spec.kind}, found {document!r:.60}"]
    if isinstance(spec, ListOf):
        if not isinstance(document, list):
            return [f"{path}: expected a list, found {document!r:.60}"]
        return [one for item in document for one in problems(item, spec.item, f"{path}[]")]
    if not isinstance(document, Mapping):
        return [f"{path}: expected an object, found {document!r:.60}"]
    if isinstance(spec, MapOf):
        return [one for item in document.values() for one in problems(item, spec.item, f"{path}{{}}")]
    missing = [f"{path}.{name}: missing".lstrip(".") for name in spec if name not in document]
    unknown = [f"{path}.{name}: unknown field".lstrip(".") for name in document if name not in spec]
    inside = [
        one
        for name, item in spec.items()
        if name in document
        for one in problems(document[name], item, f"{path}.{name}".lstrip("."))
    ]
    return missing + unknown + inside


def _fits(value: Any, kind: str) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = {
        "text": isinstance(value, str),
        "number": is_number,
        "integer": is_number and isinstance(value, int),
        "null": value is None,
    }
    return any(fits[one] for one in kind.split(" or "))


def leaves(spec: Any = None, path: str = "") -> Iterator[tuple[str, Field]]:
    """Walk the schema: path and field of every value."""
    spec = SCHEMA if spec is None else spec
    if isinstance(spec, Field):
        yield path, spec
    elif isinstance(spec, ListOf | MapOf):
        yield from leaves(spec.item, path + ("[]" if isinstance(spec, ListOf) else "{}"))
    else:
        for name, item in spec.items():
            yield from leaves(item, f"{path}.{name}".lstrip("."))


def page() -> str:
    """Write docs/compare_schema.md."""
    return _HEAD.format(name=NAME) + "".join(
        f"| `{path}` | {field.kind} | {field.what} |\n" for path, field in leaves()
    )


if __name__ == "__main__":
    sys.stdout.write(page())
