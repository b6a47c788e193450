"""Talk with a checkpoint about an image in the terminal.

python -m llava.serve.cli --model-path CHECKPOINT --image-file a.jpg

/image FILE  begin anew with another image     /reset  begin anew with the same image
/exit        leave (so do an empty line and Ctrl-D)
"""

import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import HfArgumentParser, TextStreamer
from transformers.hf_argparser import DataClassType

from llava.eval.arguments import flag
from llava.eval.chat import Assistant, Decoding, Dialogue, load_assistant, read_image
from llava.model.budgets import shift_for

COMMANDS = "commands: /image FILE, /reset, /exit"


@dataclass
class CliArguments:
    """Upstream's flags, plus budget, counting, dtype and reduction. Flags may be spelled with - or _."""

    model_path: str = flag("", "checkpoint directory or hub id")
    image_file: str | None = flag(None, "path or address of an image; unset: a dialogue without one")
    model_base: str | None = flag(None, "language model of a projector-only or LoRA directory")
    device: str = flag("auto", "auto: the GPU where there is one, else the CPU; cuda, cuda:N or cpu")
    dtype: str = flag("auto", "auto (float16 on a GPU, float32 on a CPU), float32, float16 or bfloat16")
    conv_mode: str | None = flag(None, "conversation template; unset: the checkpoint's own")
    temperature: float = flag(0.2, "0: the likeliest token; above: sampled")
    max_new_tokens: int = flag(512, "longest answer in tokens")
    budget: float | None = flag(None, "mean share of the dense FLOPs, for a calibrated checkpoint")
    counting: str = flag("visual", "what the budget counts: visual (Eq. 8, visual tokens only) or full")
    load_8bit: bool = flag(False, "load the language model in 8 bit")
    load_4bit: bool = flag(False, "load the language model in 4 bit")
    reduction: list[str] | None = field(
        default=None, metadata={"help": "METHOD [FIELD=VALUE ...]; unset: what the checkpoint says"}
    )
    debug: bool = flag(False, "print the prompt and the answer as they are")

    def __post_init__(self) -> None:
        if not self.model_path:
            raise ValueError("--model-path is missing")


def talk(assistant: Assistant, image_file: str | None, decoding: Decoding, *, debug: bool = False) -> None:
    """Read questions from standard input and write answers while they come, until the user leaves."""
    streamer = TextStreamer(assistant.tokenizer, skip_prompt=True, skip_special_tokens=True)
    names = [role_name(role) for role in assistant.template.roles]
    dialogue = begin(assistant, image_file)
    print(COMMANDS)
    while True:
        try:
            line = read_line(f"{names[0]}: ")
        except (EOFError, KeyboardInterrupt):
            line = ""
        except ValueError as error:
            print(error)
            continue
        if line in ("", "/exit"):
            print("exit")
            return
        if line.startswith("/"):
            dialogue = obey(line, dialogue)
            continue
        print(f"{names[1]}: ", end="", flush=True)
        try:
            dialogue.ask(line, decoding, streamer=streamer)
        except ValueError as error:
            print(f"\n{error}")
            continue
        if debug:
            question, answer = dialogue.turns[-1]
            print({"prompt": assistant.prompt([*dialogue.turns[:-1], (question, None)]), "answer": answer})


def read_line(prompt: str) -> str:
    """Read one line of standard input, without space around it.

    Raises:
        ValueError: the line is not UTF-8; the next one can still be read.
    """
    try:
        line = input(prompt).strip()
        line.encode("utf-8")  # bytes that are none may come as lone surrogates, which no tokenizer takes
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"the line is not UTF-8 text ({error.reason}): type it again") from error
    return line


def begin(assistant: Assistant, image_file: str | None) -> Dialogue:
    """Start a dialogue about an image, or about none."""
    return Dialogue(assistant=assistant, images=[read_image(image_file)] if image_file else [])


def obey(line: str, dialogue: Dialogue) -> Dialogue:
    """Follow a command; one that is wrong is explained and leaves the dialogue as it is."""
    command, _, argument = line.partition(" ")
    if command == "/reset" and not argument:
        print("a new dialogue about the same image")
        return Dialogue(assistant=dialogue.assistant, images=dialogue.images)
    if command != "/image" or not argument.strip():
        print(f"{line} is no command here; {COMMANDS}")
        return dialogue
    try:
        changed = begin(dialogue.assistant, argument.strip())
    except ValueError as error:
        print(error)
        return dialogue
    print(f"a new dialogue about {argument.strip()}")
    return changed


def role_name(role: str) -> str:
    r"""Return a role as a person reads it: "<|im_start|>user\n" -> "user"."""
    return re.sub(r"<\|.*?\|>", "", role).strip() or ">"


def main(words: Sequence[str] | None = None) -> None:
    """Load a checkpoint and talk; what is wrong with flags, files or checkpoints ends in one line."""
    logging.basicConfig(format="%(message)s")
    parser = HfArgumentParser(
        DataClassType(CliArguments), prog="python -m llava.serve.cli", description=__doc__
    )
    try:
        parsed, *_ = parser.parse_args_into_dataclasses(list(words) if words is not None else None)
        arguments: CliArguments = parsed
        decoding = Decoding(
            temperature=arguments.temperature,
            max_new_tokens=arguments.max_new_tokens,
            budget=arguments.budget,
            counting=arguments.counting,
        )
        assistant = load_assistant(
            arguments.model_path,
            arguments.model_base,
            conv_mode=arguments.conv_mode,
            device=arguments.device,
            dtype=arguments.dtype,
            load_8bit=arguments.load_8bit,
            load_4bit=arguments.load_4bit,
            reduction=arguments.reduction,
        )
        if decoding.budget is not None:  # once, not at every question
            model = assistant.model
            shift_for(model.budgets, model.config.reduction, decoding.budget, decoding.counting)
        talk(assistant, arguments.image_file, decoding, debug=arguments.debug)
    except ValueError as error:
        sys.exit(f"llava.serve.cli: {error}")


if __name__ == "__main__":
    main()
