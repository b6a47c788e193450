"""Rewrite a checkpoint in one precision, without what isn't read from it: `--src FOLDER --dst FOLDER`.

python -m llava.model.consolidate --src checkpoints/llava-v1.5-7b --dst checkpoints/llava-v1.5-7b-fp16
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from llava.model.assemble import assemble, source_config, source_tokenizer
from llava.model.commands import dtype_named, new_folder, run
from llava.model.files import Source, find_source


def consolidate(source: Source, target: Path, dtype: torch.dtype) -> None:
    """Load a checkpoint of any kind, merge what lies beside its base, and save model and tokenizer.

    A frozen vision tower inside the weights, which DeepSpeed saves along, is left out; it is read from
    `mm_vision_tower`. A trained one (`unfreeze_mm_vision_tower`) stays.

    Raises:
        ValueError: the weights don't fit the checkpoint's config.json.
    """
    tokenizer = source_tokenizer(source)
    model = assemble(source, source_config(source), tokenizer, dtype=dtype)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main(argv: Sequence[str] | None = None) -> None:
    """Consolidate as the command line says; upstream's flags."""
    parser = argparse.ArgumentParser(prog="python -m llava.model.consolidate")
    parser.add_argument("--src", required=True, help="checkpoint to read: directory or hub id")
    parser.add_argument("--dst", required=True, type=Path, help="folder to write; must be empty or new")
    parser.add_argument("--dtype", default=torch.float16, type=dtype_named, help="default: float16")
    arguments = parser.parse_args(argv)
    source = find_source(arguments.src, None)
    consolidate(source, new_folder(arguments.dst), arguments.dtype)


if __name__ == "__main__":
    run(main, "python -m llava.model.consolidate")
