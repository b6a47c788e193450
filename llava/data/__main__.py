"""Check training data before a GPU is rented.

python -m llava.data verify --data_path FILE --image_folder FOLDER --model_name_or_path BASE

Exit code: 0 nothing has to be put right, 1 something has to, 2 the check itself could not be made.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava.conversation import conv_templates
from llava.data.mixes import MIXES, count_sources, likely_mix
from llava.data.records import scan_records
from llava.data.report import BAD_RECORD, Report
from llava.data.verify import Checks, Finding, spread, verify
from llava.model.tokenizer import load_tokenizer


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class VerifyArguments:
    """What is checked. Flags are spelled as those of training; - and _ are one."""

    data_path: str = field(metadata={"help": "training file: a JSON list of samples"})
    image_folder: str | None = _flag(None, "folder that image paths are relative to; unset: images unread")
    model_name_or_path: str | None = _flag(None, "whose tokenizer measures lengths; unset: unmeasured")
    version: str = _flag("v1", "conversation template of training")
    model_max_length: int = _flag(2048, "tokens that training keeps of a sample")
    tokens_per_image: int = _flag(576, "visual tokens of an image; some projectors leave fewer")
    mix: str = _flag("auto", f"{', '.join(MIXES)}: demand its counts; auto: compare if the sources fit; none")
    sample: int | None = _flag(None, "check about N samples, spread over the file; unset: all")
    num_workers: int = _flag(min(16, os.cpu_count() or 1), "processes that share the work; 0: this one")
    report: str | None = _flag(None, "JSON file to write, with every finding by its sample's id")

    def __post_init__(self) -> None:
        if self.mix not in ("auto", "none", *MIXES):
            raise ValueError(f"--mix must be auto, none, {', '.join(MIXES)}, got {self.mix}")
        if self.version not in conv_templates:
            raise ValueError(f"--version {self.version} is unknown; there are {', '.join(conv_templates)}")
        for name in ("model_max_length", "tokens_per_image", "sample"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} must be 1 or more, got {value}")
        if self.image_folder is not None and not Path(self.image_folder).is_dir():
            raise ValueError(f"--image_folder {self.image_folder}: there is no such folder")


def check(arguments: VerifyArguments) -> Report:
    """Read a training file, hold its samples against the checks and gather what was found."""
    records, complaints = scan_records(arguments.data_path)
    counts = count_sources(records)
    chosen = spread(records, arguments.sample) if arguments.sample else records
    checks = Checks(
        image_folder=Path(arguments.image_folder) if arguments.image_folder else None,
        version=arguments.version,
        tokenizer=load_tokenizer(arguments.model_name_or_path) if arguments.model_name_or_path else None,
        model_max_length=arguments.model_max_length,
        tokens_per_image=arguments.tokens_per_image,
    )
    found = [Finding(BAD_RECORD, message, sample=name) for name, message in complaints]
    found += verify(chosen, checks, num_workers=arguments.num_workers, show_progress=sys.stderr.isatty())
    named = arguments.mix if arguments.mix in MIXES else None
    mix = likely_mix(counts) if arguments.mix == "auto" else named
    return Report(
        data_path=arguments.data_path,
        num_samples=len(records) + len(complaints),
        num_checked=len(chosen),
        counts=counts,
        findings=found,
        mix=mix,
        is_mix_demanded=named is not None,
        not_checked=_left_out(arguments, has_images=any(record.image for record in records)),
    )


def _left_out(arguments: VerifyArguments, *, has_images: bool) -> list[str]:
    """Say what a missing flag leaves unchecked."""
    lines: list[str] = []
    if arguments.image_folder is None and has_images:
        lines.append("images were not read: name their folder by --image_folder")
    if arguments.model_name_or_path is None:
        lines.append("lengths were not measured: name the base model by --model_name_or_path")
    return lines


def main(words: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if words is None else words)
    if given[:1] != ["verify"]:
        print(__doc__, file=sys.stderr)
        return 0 if given[:1] in (["-h"], ["--help"]) else 2
    parser = HfArgumentParser(
        DataClassType(VerifyArguments), prog="python -m llava.data verify", description=__doc__
    )
    try:
        parsed, *_ = parser.parse_args_into_dataclasses(given[1:])
        report = check(parsed)
        print(report.text())
        if parsed.report:
            Path(parsed.report).write_text(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    except (ValueError, OSError) as error:
        print(f"llava.data verify: {error}", file=sys.stderr)
        return 2
    return 1 if report.num_problems() else 0


if __name__ == "__main__":
    sys.exit(main())
