"""Find and check the answer files that the page shows, and read the scores.json beside them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "answers.jsonl"
_KERNEL = re.compile(r"[1-9]\d{0,2}x[1-9]\d{0,2}")
_EXPECTED = "expected answers.jsonl of python -m llava.eval"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One answers file: one benchmark of one run."""

    path: Path
    run: str
    benchmark: str
    rows: list[dict[str, Any]]
    """Checked answer lines that have a route."""
    unrouted: int
    """Lines that have none (questions without an image), which the page leaves out."""
    protocol: str | None
    layers: list[int]
    """Decoder layers with a DPE in front of them; [] where no scores.json says so."""
    kernels: list[str]
    """What the router's probabilities belong to, in order; [] where no scores.json says so."""
    choice: str | None
    """`argmax` for a router, `static` or `random` for a control; None where no scores.json says so."""
    aspect_ratio: str | None
    """How images became squares (pad, square, anyres); None where no scores.json says so."""


def read_sources(words: Sequence[str]) -> list[Source]:
    """Read answer files given as PATH or NAME=PATH, where a PATH may also be a result folder.

    Raises:
        ValueError: no such file, a line that isn't an answer, a file without any route, or two files of one
            run and benchmark.
    """
    sources = [_read_source(name, path) for word in words for name, path in _find(word)]
    seen: dict[tuple[str, str], Path] = {}
    for source in sources:
        key = (source.run, source.benchmark)
        if key in seen:
            raise ValueError(
                f"{seen[key]} and {source.path} are both {source.benchmark} of a run called {source.run!r}; "
                "name the runs with NAME=PATH"
            )
        seen[key] = source.path
    return sources


def _find(word: str) -> list[tuple[str | None, Path]]:
    """Return the answer files that a word of the command line stands for, and the run's name in it."""
    name, equals, rest = word.partition("=")
    is_named = bool(equals) and not Path(word).exists()
    path = Path(rest if is_named else word)
    run = name if is_named else None
    if path.is_file():
        return [(run, path)]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file or folder; {_EXPECTED}, or its folder")
    files = [path / NAME] if (path / NAME).is_file() else sorted(path.glob(f"*/{NAME}"))
    if not files:
        raise ValueError(f"{path}: neither {NAME} nor <benchmark>/{NAME} in it; {_EXPECTED}, or its folder")
    return [(run, file) for file in files]


def _read_source(run: str | None, path: Path) -> Source:
    rows = _read_rows(path)
    routed = [row for row in rows if row["route"] and row["visual_tokens_per_layer"][0]]
    if not routed:
        raise ValueError(
            f"{path}: none of its {len(rows)} answers has a route, so there is nothing to show: they come "
            "from a dense model, or from a program that writes no routes; give answers of a DPN checkpoint"
        )
    scores = _read_scores(path.with_name("scores.json"))
    reduction = scores.get("reduction") or {}
    folder = path.resolve().parent
    return Source(
        path=path,
        run=run or folder.parent.name or path.stem,
        benchmark=scores.get("benchmark") or folder.name or path.stem,
        rows=routed,
        unrouted=len(rows) - len(routed),
        protocol=scores.get("protocol"),
        layers=reduction["layers"] if _is_list(reduction.get("layers"), _is_count) else [],
        kernels=_kernel_names(reduction.get("kernels")),
        choice=reduction.get("eval_choice"),
        aspect_ratio=scores.get("image_aspect_ratio"),
    )


def _read_scores(path: Path) -> dict[str, Any]:
    """Read scores.json; {} where there is none: then the page says less."""
    if not path.is_file():
        return {}
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: can't be read ({error}); evaluate again, or move it away") from error
    if not isinstance(scores, dict) or not isinstance(scores.get("reduction") or {}, dict):
        raise ValueError(f"{path}: not a scores.json of llava.eval; evaluate again, or move it away")
    return scores


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: can't be read as text ({error}); {_EXPECTED}") from error
    rows = [_read_row(f"{path}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise ValueError(f"{path}: empty; {_EXPECTED}")
    return rows


def _read_row(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON ({error}); {_EXPECTED}") from error
    absent = [key for key in ("question_id", "prompt", "text") if not isinstance(row, dict) or key not in row]
    if absent:
        raise ValueError(f"{where}: no {', '.join(absent)}; {_EXPECTED}")
    row = {"route": [], "visual_tokens_per_layer": [0], "probabilities": [], "visual_grids": [], **row}
    for key, (is_good, rule) in _RULES.items():
        if key in row and not is_good(row[key]):
            raise ValueError(f"{where}: {key} is {row[key]!r:.60}; expected {rule}")
    if row["probabilities"] and len(row["probabilities"]) != len(row["route"]):
        raise ValueError(
            f"{where}: probabilities of {len(row['probabilities'])} DPEs, but a route of {len(row['route'])}"
        )
    return row


def _kernel_names(kernels: Any) -> list[str]:
    """Name kernels as routes do; [] where a reduction has none."""
    is_known = _is_list(kernels, _is_pair)
    return [f"{rows}x{columns}" for rows, columns in kernels] if is_known else []


def _is_number(value: Any) -> bool:
    """Say whether a value from a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_pair(value: Any) -> bool:
    return _is_list(value, _is_count, least=2) and len(value) == 2


def _is_list(value: Any, is_item: Any, *, least: int = 0) -> bool:
    return isinstance(value, list) and len(value) >= least and all(is_item(item) for item in value)


_RULES: Mapping[str, tuple[Any, str]] = {
    "question_id": (lambda v: isinstance(v, str | int) and not isinstance(v, bool), "a string or a number"),
    "prompt": (lambda v: isinstance(v, str), "a string"),
    "text": (lambda v: isinstance(v, str), "a string"),
    "image": (lambda v: v is None or isinstance(v, str), "a path or null"),
    "score": (lambda v: v is None or _is_number(v), "a number or null"),
    "route": (
        lambda v: _is_list(v, lambda name: isinstance(name, str) and _KERNEL.fullmatch(name)),
        'kernels such as ["1x1", "2x2"]',
    ),
    "probabilities": (
        lambda v: _is_list(v, lambda dpe: _is_list(dpe, _is_number)),
        "a list of numbers per DPE",
    ),
    "visual_tokens_per_layer": (lambda v: _is_list(v, _is_count, least=1), "a count per layer"),
    "visual_grids": (
        lambda v: _is_list(v, _is_pair),
        "[rows, columns] per crop",
    ),
    "flops_ratio": (
        lambda v: isinstance(v, dict) and all(_is_number(share) for share in v.values()),
        "a number per counting",
    ),
}
"""What a key of an answer line must be where it is there."""
