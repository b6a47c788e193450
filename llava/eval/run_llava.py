"""Ask a checkpoint one question about one or several images.

python -m llava.eval.run_llava --model-path CHECKPOINT --image-file a.jpg --query "What is this?"
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser
from transformers.hf_argparser import DataClassType

from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER
from llava.eval.arguments import flag
from llava.eval.chat import Decoding, load_assistant, read_image


@dataclass
class RunArguments:
    """Upstream's flags, and budget, counting, device, dtype and reduction, spelled with - or _."""

    model_path: str = flag("", "checkpoint directory or hub id")
    image_file: str = flag("", "a path or address, or several joined by --sep")
    query: str = flag("", f"the question; {IMAGE_PLACEHOLDER} says where an image goes, else they come first")
    model_base: str | None = flag(None, "language model of a projector-only or LoRA directory")
    conv_mode: str | None = flag(None, "conversation template; unset: the checkpoint's own")
    sep: str = flag(",", "what joins several image files")
    temperature: float = flag(0.2, "0: the likeliest token; above: sampled")
    top_p: float | None = flag(None, "nucleus of a sampled answer")
    num_beams: int = flag(1, "beams")
    max_new_tokens: int = flag(512, "longest answer in tokens")
    budget: float | None = flag(None, "mean share of the dense FLOPs, for a calibrated checkpoint")
    counting: str = flag("visual", "what the budget counts: visual (Eq. 8, visual tokens only) or full")
    device: str = flag("auto", "auto: the GPU where there is one, else the CPU")
    dtype: str = flag("auto", "auto (float16 on a GPU, float32 on a CPU), float32, float16 or bfloat16")
    reduction: list[str] | None = field(
        default=None, metadata={"help": "METHOD [FIELD=VALUE ...]; unset: what the checkpoint says"}
    )

    def __post_init__(self) -> None:
        for name in ("model_path", "image_file", "query"):
            if not getattr(self, name):
                raise ValueError(f"--{name.replace('_', '-')} is missing")
        if not self.sep:
            raise ValueError("--sep must not be empty")


def eval_model(args: Any) -> str:
    """Answer `args.query`, print the answer and return it.

    Args:
        args: an object with upstream's attributes `model_path`, `model_base`, `query`, `conv_mode`,
            `image_file`, `sep`, `temperature`, `top_p`, `num_beams`, `max_new_tokens`; `model_name` is
            ignored, `budget`, `counting`, `device`, `dtype` and `reduction` may be there.

    Raises:
        ValueError: an image can't be read, there is another number of places for images than images, or the
            checkpoint can't be loaded.
    """
    images = [read_image(source) for source in split_sources(args.image_file, args.sep)]
    places = args.query.count(IMAGE_PLACEHOLDER) + args.query.count(DEFAULT_IMAGE_TOKEN)
    if places not in (0, len(images)):
        raise ValueError(
            f"--query has {places} places for images, but --image-file names {len(images)}: give one "
            f"{IMAGE_PLACEHOLDER} for each, or none to put the images first"
        )
    decoding = Decoding(
        temperature=args.temperature,
        top_p=args.top_p,
        num_beams=args.num_beams,
        max_new_tokens=args.max_new_tokens,
        budget=getattr(args, "budget", None),  # upstream's callers have neither this one nor those below
        counting=getattr(args, "counting", "visual"),
    )
    assistant = load_assistant(
        args.model_path,
        args.model_base,
        conv_mode=args.conv_mode,
        device=getattr(args, "device", "auto"),
        dtype=getattr(args, "dtype", "auto"),
        reduction=getattr(args, "reduction", None),
    )
    mark = assistant.image_mark()
    question = args.query.replace(DEFAULT_IMAGE_TOKEN, IMAGE_PLACEHOLDER).replace(IMAGE_PLACEHOLDER, mark)
    if places == 0:
        question = f"{mark}\n" * len(images) + question
    answer = assistant.answer(assistant.prompt([(question, None)]), images, decoding)
    print(answer)
    return answer


def split_sources(text: str, separator: str) -> list[str]:
    """Split joined image files; a separator inside an address or an existing file's name doesn't count.

    "a.png,https://x.org/w=1,h=2/b.png" -> ["a.png", "https://x.org/w=1,h=2/b.png"]
    """
    if _is_file(text):
        return [text]
    sources: list[str] = []
    for part in text.split(separator):
        is_address = part.startswith(("http://", "https://"))
        in_address = bool(sources) and sources[-1].startswith(("http://", "https://"))
        if in_address and not is_address and not _is_file(part):
            sources[-1] += separator + part
        else:
            sources.append(part)
    return sources


def _is_file(text: str) -> bool:
    """Say whether a text names a file; many joined ones are longer than a file system takes."""
    try:
        return Path(text).is_file()
    except OSError:
        return False


def parse(words: Sequence[str] | None = None) -> RunArguments:
    """Parse a command line; `None` reads this process's."""
    parser = HfArgumentParser(
        DataClassType(RunArguments), prog="python -m llava.eval.run_llava", description=__doc__
    )
    parsed, *_ = parser.parse_args_into_dataclasses(list(words) if words is not None else None)
    return parsed


def main(words: Sequence[str] | None = None) -> None:
    """Answer one question; what is wrong with flags, files or checkpoints ends in one line."""
    logging.basicConfig(format="%(message)s")
    try:
        eval_model(parse(words))
    except ValueError as error:
        sys.exit(f"llava.eval.run_llava: {error}")


if __name__ == "__main__":
    main()
