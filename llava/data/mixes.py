"""What LLaVA-1.5's two training files hold, per source of images, and how a file compares with them."""

from collections import Counter
from collections.abc import Sequence

from llava.data.records import Record

TEXT_ONLY = "text only"
NUMBERED = "numbered folders"
"""Images like 00453/004539375.jpg, as the 558K captions have them."""

SOURCES_SHOWN = 8
"""Sources that a training log names."""

MIXES: dict[str, dict[str, int]] = {
    "665k": {
        "coco": 364_100,
        "gqa": 72_140,
        "ocr_vqa": 80_000,
        "textvqa": 21_953,
        "vg": 86_417,
        TEXT_ONLY: 40_688,
    },
    "558k": {NUMBERED: 558_128},
}
"""Samples per source: llava_v1_5_mix665k.json (665,298) and blip_laion_cc_sbu_558k.json (558,128)."""


def source_of(record: Record) -> str:
    """Return the first folder of a sample's image path: "coco/train2017/1.jpg" -> "coco"."""
    if record.image is None:
        return TEXT_ONLY
    first, separator, _ = record.image.partition("/")
    if not separator:
        return "no folder"
    return NUMBERED if first.isdigit() else first


def count_sources(records: Sequence[Record]) -> Counter[str]:
    """Count the samples of every source."""
    return Counter(source_of(record) for record in records)


def name_sources(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Give names of sources, and the number of every sample's; rare ones share the name `other`.

    >>> name_sources(["coco", "gqa", "coco"])
    (['coco', 'gqa'], [0, 1, 0])
    """
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    shown = ranked if len(ranked) <= SOURCES_SHOWN else [*ranked[: SOURCES_SHOWN - 1], "other"]
    numbers = {name: min(place, len(shown) - 1) for place, name in enumerate(ranked)}
    return shown, [numbers[name] for name in names]


def likely_mix(counts: Counter[str]) -> str | None:
    """Return the mix that has exactly these sources, whatever their counts; None for other data."""
    return next((name for name, mix in MIXES.items() if set(mix) == set(counts)), None)


def differences(counts: Counter[str], mix: str) -> dict[str, tuple[int, int]]:
    """Return (found, expected) of every source in which a file differs from a mix."""
    expected = MIXES[mix]
    sources = sorted({*expected, *counts})
    pairs = {source: (counts[source], expected.get(source, 0)) for source in sources}
    return {source: pair for source, pair in pairs.items() if pair[0] != pair[1]}
