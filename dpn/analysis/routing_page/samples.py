"""From answer lines to what the page shows of each: one plain object per answer, JSON-ready."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from dpn.analysis.examples import question_line
from dpn.analysis.routing_page.answers import FITS, Source
from dpn.analysis.routing_page.pictures import Pictures
from dpn.analysis.routing_page.questions import Questions
from dpn.analysis.routing_page.stages import Stage, distinct, square_grid, stages_of


def build_data(
    sources: Sequence[Source],
    pictures: Pictures,
    questions: Questions,
    *,
    max_samples: int | None = None,
    aspect_ratio: str | None = None,
) -> dict[str, Any]:
    """Return everything the page shows.

    Args:
        sources: answer files.
        pictures: takes the images.
        questions: what answer lines may lack.
        max_samples: at most so many answers per file, evenly spread over its images.
        aspect_ratio: `image_aspect_ratio` where no scores.json names it.

    Raises:
        ValueError: images that can't be used, or that aren't square while nothing says how they were made so.
    """
    samples = []
    for number, source in enumerate(sources):
        rows = [questions.complete(row) for row in source.rows]
        samples += [_sample(number, row, source, pictures, aspect_ratio) for row in spread(rows, max_samples)]
    images = pictures.embed()
    _require_fit(sources, samples, images, aspect_ratio)
    return {
        "sources": [_source(source, aspect_ratio) for source in sources],
        "images": images,
        "samples": samples,
    }


def spread(rows: Sequence[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """Take at most `limit` answers: those of images evenly spread over the file, all questions of each.

    >>> [row["image"] for row in spread([{"image": name} for name in "aabbccdd"], 4)]
    ['a', 'a', 'c', 'c']
    """
    if limit is None or len(rows) <= limit:
        return list(rows)
    groups: dict[Any, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        image = row.get("image")
        groups.setdefault(number if image is None else image, []).append(row)
    count = math.ceil(len(groups) * limit / len(rows))
    listed = list(groups.values())
    chosen = [listed[index * len(listed) // count] for index in range(count)]
    return [row for group in chosen for row in group][:limit]


def _source(source: Source, aspect_ratio: str | None) -> dict[str, Any]:
    return {
        "run": source.run,
        "benchmark": source.benchmark,
        "protocol": source.protocol,
        "layers": source.layers,
        "kernels": source.kernels,
        "choice": source.choice,
        "fit": FITS.get(source.aspect_ratio or aspect_ratio or "", "cover"),
        "unrouted": source.unrouted,
    }


def _sample(
    number: int, row: dict[str, Any], source: Source, pictures: Pictures, aspect_ratio: str | None
) -> dict[str, Any]:
    """Return what the page shows of one answer; what isn't known is null there."""
    image, counts = row.get("image"), row["visual_tokens_per_layer"]
    where = f"{source.path}, question {row['question_id']}"
    stages = _stages(row, source.aspect_ratio or aspect_ratio)
    ratios = row.get("flops_ratio", {})
    return {
        "source": number,
        "id": str(row["question_id"]),
        "prompt": row["prompt"],
        "question": question_line(row["prompt"]),
        "text": row["text"],
        "gold": _text(row.get("gold")),
        "score": row.get("score"),
        "grade": _text(row.get("grade")),
        "category": _text(row.get("category", row.get("kind"))),
        "image": None if image is None else pictures.add(image, where),
        "route": row["route"],
        "probabilities": row["probabilities"],
        "stages": stages,
        "crops": len(row["visual_grids"]) or 1,
        "counts": distinct(counts) if stages is None else [stage.tokens for stage in stages],
        "tokens": statistics.fmean(counts),
        "flops": {name: ratios.get(name) for name in ("paper", "full")},
    }


def _stages(row: dict[str, Any], aspect_ratio: str | None) -> list[Stage] | None:
    """Return the grids of an answer's stages; None where they can't be known."""
    counts = row["visual_tokens_per_layer"]
    grids = [(rows, columns) for rows, columns in row["visual_grids"]]
    if not grids and aspect_ratio != "anyres":  # lines written before grids were: one crop, so one square
        grids = square_grid(counts[0])
    return stages_of(grids, row["route"], counts)


def _text(value: Any) -> str | None:
    """Return a value as text; None where there is nothing to read."""
    return None if value is None or value == "" else str(value)


def _require_fit(
    sources: Sequence[Source],
    samples: Sequence[dict[str, Any]],
    images: Sequence[dict[str, Any]],
    aspect_ratio: str | None,
) -> None:
    """Refuse to draw a grid over an image of which nobody says how it was made square."""
    for sample in samples:
        source = sources[sample["source"]]
        image = {"width": 1, "height": 1} if sample["image"] is None else images[sample["image"]]
        is_square = image["width"] == image["height"]
        if not is_square and (source.aspect_ratio or aspect_ratio) is None:
            raise ValueError(
                f"{source.path}: image {image['path']} is {image['width']}x{image['height']}, and no "
                "scores.json beside the answers says how it was made square; pass --image_aspect_ratio "
                "(image_aspect_ratio of the checkpoint's config.json: pad for LLaVA-1.5)"
            )
