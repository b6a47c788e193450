"""Find and check the answer files that the page shows, and read the scores.json beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpn.analysis.reading import (
    ANSWER_RULES,
    Rules,
    check,
    is_count,
    is_list,
    is_pair,
    is_text_or_null,
    read_object,
    read_rows,
)

NAME = "answers.jsonl"
FITS = {"pad": "contain", "square": "cover", "anyres": "fill"}
"""How an image got into the tower's square, by `image_aspect_ratio`, as CSS's `object-fit` calls it."""
_EXPECTED = "expected answers.jsonl of python -m llava.eval"
_GIVE = "give an answers.jsonl of python -m llava.eval"
_AWAY = "evaluate it again, or move it away"
_SCORE_RULES: Rules = {
    "benchmark": (is_text_or_null, "a string or null"),
    "protocol": (is_text_or_null, "a string or null"),
    "reduction": (lambda v: v is None or isinstance(v, dict), "an object or null"),
    "image_aspect_ratio": (
        lambda v: v is None or (isinstance(v, str) and v in FITS),
        f"{', '.join(FITS)} or null",
    ),
}
"""What the page reads of scores.json."""


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
    choice = reduction.get("eval_choice")
    folder = path.resolve().parent
    return Source(
        path=path,
        run=run or folder.parent.name or path.stem,
        benchmark=scores.get("benchmark") or folder.name or path.stem,
        rows=routed,
        unrouted=len(rows) - len(routed),
        protocol=scores.get("protocol"),
        layers=reduction["layers"] if is_list(reduction.get("layers"), is_count) else [],
        kernels=_kernel_names(reduction.get("kernels")),
        choice=choice if isinstance(choice, str) else None,
        aspect_ratio=scores.get("image_aspect_ratio"),
    )


def _read_scores(path: Path) -> dict[str, Any]:
    """Read scores.json; {} where there is none: then the page says less."""
    if not path.is_file():
        return {}
    scores = read_object(path, _AWAY)
    check(scores, _SCORE_RULES, str(path), _AWAY)
    return scores


def _read_rows(path: Path) -> list[dict[str, Any]]:
    found = read_rows(path, ANSWER_RULES, required=("question_id", "prompt", "text"), advice=_GIVE)
    rows = []
    for where, line in found:
        row = {"route": [], "visual_tokens_per_layer": [0], "probabilities": [], "visual_grids": [], **line}
        if row["probabilities"] and len(row["probabilities"]) != len(row["route"]):
            raise ValueError(
                f"{where}: probabilities of {len(row['probabilities'])} DPEs, but a route of "
                f"{len(row['route'])}; {_GIVE}"
            )
        rows.append(row)
    return rows


def _kernel_names(kernels: Any) -> list[str]:
    """Name kernels as routes do; [] where a reduction has none."""
    is_known = is_list(kernels, is_pair)
    return [f"{rows}x{columns}" for rows, columns in kernels] if is_known else []
