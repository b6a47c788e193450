"""Accuracies for the plot beside times: scores.json of `llava.eval`, RUN/BENCHMARK/scores.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

POINTS = {"mme": 20.0}
"""What a benchmark's points are divided by in means over benchmarks, as in the paper's Table 1."""


def read_results(folders: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Read the runs of several methods: mean accuracy and mean shares of the dense FLOPs of each.

    Raises:
        ValueError: no results in a folder, a file that isn't a scored scores.json, or runs on different
            benchmarks or protocols, whose means can't be compared.
    """
    runs = [_read(method, folder) for method, folder in folders]
    for run in runs[1:]:
        if run["protocols"] != runs[0]["protocols"]:
            raise ValueError(
                f"--accuracy: {run['folder']} has the protocols {sorted(run['protocols'].values())}, "
                f"{runs[0]['folder']} has {sorted(runs[0]['protocols'].values())}; means over different ones "
                f"can't stand in one plot"
            )
    return runs


def _read(method: str, folder: Path) -> dict[str, Any]:
    files = sorted(folder.glob("*/scores.json"))
    if not files:
        raise ValueError(
            f"--accuracy: {folder} has no BENCHMARK/scores.json; expected the --output_dir of llava.eval"
        )
    scores = {path.parent.name: _scores(path) for path in files}
    return {
        "method": method,
        "folder": str(folder),
        "protocols": {name: one["protocol"] for name, one in scores.items()},
        "accuracy": _mean([one["accuracy"] for one in scores.values()]),
        "flops_share": {
            counting: _mean([one["flops_ratio"][counting] for one in scores.values()])
            for counting in ("paper", "full")
        },
    }


def _scores(path: Path) -> dict[str, Any]:
    """Read one file: its protocol, headline accuracy in percent and FLOPs."""
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        points = POINTS.get(scores["benchmark"], 1.0)
        return {
            "protocol": scores["protocol"],
            "accuracy": scores["metrics"][scores["headline"]] / points,
            "flops_ratio": {name: float(scores["flops_ratio"][name]) for name in ("paper", "full")},
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"--accuracy: {path} is no scores.json with a score and FLOPs ({error!r}); score its answers with "
            f"llava.eval first"
        ) from error


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
