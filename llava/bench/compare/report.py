"""A comparison as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava.bench.compare.counting import COUNTINGS
from llava.bench.report import quartiles, table

Row = Mapping[str, Any]


_NOTES = """\
{device}, {dtype}, {threads} thread(s), load average {start:.1f} at the start and {end:.1f} at the end; torch
{torch}, transformers {transformers}. Decoder {hidden_size} x {num_layers} layers, feed-forward
{intermediate_size}, heads {num_heads}/{num_kv_heads}; tower {tower_width} x {tower_layers} layers; prompts of
{visual} visual and {text} text tokens. Weights: {weights}, the same tensors in all rows but for routers and
projectors. {clock} seconds, medians of {rounds} rounds in random order after {warmup} untimed run(s) and one
for the memory; a ratio is the median of the ratios within a round, in brackets its quartiles.

"visual" is the realised share of the dense visual FLOPs (Eq. 8), which budgets are about; "full" counts all
tokens, three FFN matrices and what it takes to decide; "measured" is what torch's counter saw. All are of
the decoder's prefill, relative to plain LLaVA's. "time / FLOPs" is prefill / dense over the share. encode +
prefill + decode = end-to-end; select is a part of the first two: docs/benchmarking.md. Peak is the most
allocated in a run beyond what was held before it.
"""


def markdown(document: Row) -> str:
    """Render a comparison: budgets that were missed, per batch what is counted, per case the times."""
    parts = [f"# llava.bench compare, {document['preset']}\n"]
    if document["missed"]:
        parts += ["Not timed, because nothing that the method can be set to comes near the budget:\n"]
        parts.append(table(_MISSED_COLUMNS, [_missed_cells(one) for one in document["missed"]]))
    seen = None
    for case in document["cases"]:
        if case["batch"] != seen:
            seen = case["batch"]
            parts += [f"## batch {seen}\n", _rendered(_COUNTED, case["rows"])]
        parts += [f"### batch {seen}, answers of {case['answer']}\n", _rendered(_TIMED, case["rows"])]
    return "\n".join([*parts, *_warnings(document), _notes(document)])


def _notes(document: Row) -> str:
    contract = document["contract"]
    values = (
        dict(document["shape"]) | dict(document["versions"]) | dict(document["load_average"]) | dict(contract)
    )
    values["weights"] = document["weights"]
    values["clock"] = {"wall": "Wall-clock", "cpu": "Processor"}[contract["clock"]]
    return _NOTES.format(**values)


def _warnings(document: Row) -> list[str]:
    rows = [row for case in document["cases"] for row in case["rows"]]
    lacking = sorted({name for row in rows for name in row["attention_not_counted"]})
    if not lacking:
        return []
    return [f"\"measured\" lacks attention that torch's counter doesn't know: {', '.join(lacking)}.\n"]


def _rendered(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> str:
    return table(list(columns), [[cell(row) for cell in columns.values()] for row in rows])


def _ms(phase: str) -> Callable[[Row], str]:
    return lambda row: f"{1000 * row['phases'][phase]['seconds']:.1f}"


def _over(phase: str) -> Callable[[Row], str]:
    return lambda row: quartiles(row["phases"][phase]["over_dense"])


_MISSED_COLUMNS = ("method", "budget", "nearest share", "with", "batch")


def _missed_cells(one: Row) -> list[str]:
    batch = "all" if one["batch"] is None else str(one["batch"])
    return [one["method"], f"{one['budget']:g}", f"{one['nearest']:.3f}", _settings(one), batch]


def _settings(row: Row) -> str:
    return " ".join(row["settings"])


_COUNTED: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row["name"],
    "settings": _settings,
    "visual": lambda row: f"{row['share']:.3f}",
    "full": lambda row: f"{row['flops_share']['full']:.3f}",
    "measured": lambda row: f"{row['flops_share']['measured']:.3f}",
    "prefill G (paper)": lambda row: f"{row['flops']['prefill']['paper'] / 1e9:.2f}",
    "(full)": lambda row: f"{row['flops']['prefill']['full'] / 1e9:.2f}",
    "(measured)": lambda row: f"{row['flops']['prefill']['measured'] / 1e9:.2f}",
    "encode G (measured)": lambda row: f"{row['flops']['encode'] / 1e9:.2f}",
    "KV MB": lambda row: f"{row['kv_bytes'] / 1e6:.1f}",
    "KV / dense": lambda row: f"{row['kv_over_dense']:.3f}",
}
_TIMED: dict[str, Callable[[Row], str]] = {
    "method": lambda row: row["name"],
    "encode ms": _ms("encode"),
    "select ms": _ms("select"),
    "prefill ms": _ms("prefill"),
    "decode ms": _ms("decode"),
    "end-to-end ms": _ms("end_to_end"),
    "prefill / dense": _over("prefill"),
    "decode / dense": _over("decode"),
    "end-to-end / dense": _over("end_to_end"),
    **{
        f"time / FLOPs ({name})": lambda row, name=name: f"{row['time_over_flops'][name]:.3f}"
        for name in COUNTINGS
    },
    "samples/s": lambda row: f"{row['samples_per_second']:.2f}",
    "ms per token": lambda row: "" if row["step_seconds"] is None else f"{1000 * row['step_seconds']:.1f}",
    "peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.1f}",
    "peak / dense": lambda row: f"{row['peak_over_dense']:.3f}",
}
