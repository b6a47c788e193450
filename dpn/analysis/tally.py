"""A headline as a function of sums over questions, so that it can be computed on any draw of them.

Shapes: U units (questions, or what the metric binds together), K sums per unit.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dpn.analysis.results import Result

_TOLERANCE = 0.005
"""How far the headline in scores.json may be from the one recomputed: half of the last digit shown."""
_ROTATION = 1_000_000
"""MMBench numbers the rotations of a question this far apart."""
_PERCEPTION = frozenset(
    ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
)
"""Categories of MME whose points the headline adds up."""
_SEED_IMAGES = "SEED-Bench-image/"
_IMAGE_TOKEN = "<image>"

Rows = Sequence[Mapping[str, Any]]


class NoTallyError(ValueError):
    """The answers don't say question by question what the headline is made of; the message says why."""


class Tally(NamedTuple):
    """What a headline is made of."""

    units: tuple[Hashable, ...]
    """What is drawn as one: a question by its identity, or all rows of one MMBench question or MME image.
    `tally` puts them in one order, whatever that of the file."""
    sums: np.ndarray
    """(U, K) float64."""
    headline: Callable[[np.ndarray], np.ndarray]
    """(..., K) sums over units to (...,) headlines."""

    @property
    def is_share(self) -> bool:
        """Whether the headline is the share of units that are right, each either right or wrong."""
        is_mean = self.headline is _ratio and bool((self.sums[:, 1] == 1).all())
        return is_mean and bool(np.isin(self.sums[:, 0], (0.0, 1.0)).all())


def tally(benchmark: str, result: Result) -> Tally:
    """Take a benchmark's answers apart.

    Raises:
        NoTallyError: an answer has no score of its own, or the answers don't add up to the headline.
    """
    if not result.answers or any(row.get("score") is None for row in result.answers):
        raise NoTallyError("answers.jsonl holds no score per question")
    found = _in_order(_BUILDERS.get(benchmark, _mean)(result.answers))
    total = float(found.headline(found.sums.sum(0)))
    if not abs(total - result.accuracy) <= _TOLERANCE:
        drawn = result.scores["metrics"].get("num_random_fallback")
        reason = f"; {drawn:g} letters were drawn" if drawn else ""
        raise NoTallyError(
            f"the scores in answers.jsonl give {total:.2f}, scores.json says {result.accuracy:.2f}{reason}"
        )
    return found


def _in_order(found: Tally) -> Tally:
    """Sort the units, so that the same questions in another order are the same questions."""
    order = sorted(range(len(found.units)), key=lambda place: repr(found.units[place]))
    return found._replace(units=tuple(found.units[place] for place in order), sums=found.sums[order])


def identities(rows: Rows) -> list[Hashable]:
    """Return what tells the questions apart: id, prompt, and which of several that agree in both."""
    seen: dict[tuple[str, str], int] = {}
    found: list[Hashable] = []
    for row in rows:
        key = str(row["question_id"]), row["prompt"]
        seen[key] = seen.get(key, 0) + 1
        found.append((*key, seen[key]))
    return found


def _mean(rows: Rows) -> Tally:
    if not rows:
        raise NoTallyError("none of the answers in answers.jsonl counts for the headline")
    sums = np.array([[row["score"], 1.0] for row in rows])
    return Tally(tuple(identities(rows)), sums, _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Percent of the first sum in the second: (..., 2) to (...,)."""
    return 100 * _divide(sums[..., 0], sums[..., 1])


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)


def _scienceqa(rows: Rows) -> Tally:
    """Questions with an image only, told by the stored prompt as in the original."""
    return _mean([row for row in rows if _IMAGE_TOKEN in row["prompt"]])


def _seed(rows: Rows) -> Tally:
    """Questions about images only, where videos were asked about, too."""
    return _mean([row for row in rows if _SEED_IMAGES in (row.get("image") or _SEED_IMAGES)])


def _mmbench(rows: Rows) -> Tally:
    """Call a question right if all its rotations are."""
    scores: dict[Hashable, list[float]] = {}
    for row in rows:
        if not str(row["question_id"]).isdecimal():
            raise NoTallyError(f"answers.jsonl has the question_id {row['question_id']!r:.60}, not MMBench's")
        scores.setdefault(int(row["question_id"]) % _ROTATION, []).append(row["score"])
    return Tally(tuple(scores), np.array([[min(found), 1.0] for found in scores.values()]), _ratio)


def _pope(rows: Rows) -> Tally:
    """Mean of the splits' F1: per split right yes, said yes, is yes."""
    if any("category" not in row or "gold" not in row for row in rows):
        raise NoTallyError("answers.jsonl doesn't name POPE's splits (category) and truths; evaluate again")
    splits = sorted({str(row["category"]) for row in rows})
    sums = np.zeros((len(rows), len(splits), 3))
    for number, row in enumerate(rows):
        is_yes, is_right = row["gold"] == "yes", row["score"] == 1
        says_yes = is_yes == is_right
        sums[number, splits.index(str(row["category"]))] = is_yes and says_yes, says_yes, is_yes
    return Tally(tuple(identities(rows)), sums.reshape(len(rows), -1), _mean_f1)


def _mean_f1(sums: np.ndarray) -> np.ndarray:
    """(..., 3 S) sums of S splits to (...,) mean F1 in percent."""
    hits, said, are = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 3), -1, 0)  # (..., S) each
    return 100 * _divide(2 * hits, said + are).mean(-1)


def _mme(rows: Rows) -> Tally:
    """Points of perception: per category right questions, questions, images all right, images."""
    images: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        name = str(row["question_id"])
        category = name.split("/", 1)[0]
        if category in _PERCEPTION:
            images.setdefault((category, name), []).append(row["score"])
    if not images:
        raise NoTallyError("answers.jsonl has no question of MME's perception")
    categories = sorted({category for category, _ in images})
    sums = np.zeros((len(images), len(categories), 4))
    for number, ((category, _), scores) in enumerate(images.items()):
        sums[number, categories.index(category)] = sum(scores), len(scores), min(scores), 1
    return Tally(tuple(images), sums.reshape(len(images), -1), _points)


def _points(sums: np.ndarray) -> np.ndarray:
    """(..., 4 C) sums of C categories to (...,) points."""
    right, asked, whole, images = np.moveaxis(sums.reshape(*sums.shape[:-1], -1, 4), -1, 0)  # (..., C) each
    return 100 * (_divide(right, asked) + _divide(whole, images)).sum(-1)


_BUILDERS: dict[str, Callable[[Rows], Tally]] = {
    "scienceqa": _scienceqa,
    "seed": _seed,
    "mmbench": _mmbench,
    "pope": _pope,
    "mme": _mme,
}
"""Benchmarks whose headline isn't the mean of all scores."""
