"""Writes the whole small world: images, records, benchmark files, tower, base model, photographs."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from numpy.random import Generator

from llava.toy.benchmarks import QUICKSTART, SMALL
from llava.toy.boards import draw_boards, stream
from llava.toy.photos import write_photos
from llava.toy.records import Record, caption_records, instruction_records
from llava.toy.world import PATTERNS, Scene, patterned_scene

BASE = Path(__file__).parent / "base"
"""The pre-trained tower and base model in the repository; PROVENANCE.md there says how they were made."""
MODELS = ("clip-tiny", "vicuna-tiny")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything is written."""

    stage1_images: int = 2000
    """Images for stage 1."""
    stage2_images: int = 3000
    """Images for stage 2; several records share one."""
    stage1: int = 4000
    """Captions for stage 1."""
    stage2: int = 12000
    """Records for stage 2."""
    evaluation: int = 600
    """Questions per benchmark of the quickstart: GQA, POPE and TextVQA."""
    small: int = 30
    """Questions per further benchmark, about."""

    def __post_init__(self) -> None:
        for field, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")


def generate(output: Path, *, seed: int, sizes: Sizes, photos: bool = False) -> None:
    """Write the world to `output`; the same seed and sizes give the same bytes."""
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--output {output} can't be made into a folder: {error}. Name a place that can."
        ) from error
    copy_models(output)
    write_stage1(output, seed=seed, sizes=sizes)
    write_stage2(output, seed=seed, sizes=sizes)
    for folder, write in QUICKSTART.items():
        write(output / "eval" / folder, seed=seed, count=sizes.evaluation)
    for folder, write in SMALL.items():
        write(output / "eval" / folder, seed=seed, count=sizes.small)
    if photos:
        write_photos(output / "photos")


def write_stage1(output: Path, *, seed: int, sizes: Sizes) -> None:
    """Captions of boards, most of which are patterned."""

    def draw(rng: Generator) -> Scene:
        return patterned_scene(rng, str(rng.choice(list(PATTERNS), p=list(PATTERNS.values()))))

    boards = draw_boards(
        output / "images",
        seed=seed,
        part="stage1",
        count=sizes.stage1_images,
        name="stage1/%06d.png",
        draw=draw,
    )
    _write_records(output / "stage1.json", caption_records(boards, stream(seed, "stage1"), sizes.stage1))


def write_stage2(output: Path, *, seed: int, sizes: Sizes) -> None:
    """Questions and dialogues about scattered boards."""
    boards = draw_boards(
        output / "images", seed=seed, part="stage2", count=sizes.stage2_images, name="stage2/%06d.png"
    )
    _write_records(output / "stage2.json", instruction_records(boards, stream(seed, "stage2"), sizes.stage2))


def copy_models(output: Path) -> None:
    """Copy the pre-trained tower and base model."""
    for name in MODELS:
        source = BASE / name
        if not source.is_dir():
            raise ValueError(
                f"no {source}: the pre-trained models of the small world are missing from this installation. "
                f"Make them with `python -m llava.toy.pretrain --output {BASE}`."
            )
        shutil.copytree(source, output / name, dirs_exist_ok=True)


def _write_records(path: Path, records: list[Record]) -> None:
    path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
