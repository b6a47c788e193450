"""What upstream's `model_vqa*` commands have in common: flags, chunks, an answers file written line by line.

They ask any question file and score nothing; `python -m llava.eval` does both, resumes, and shares the work
among ranks. The answers file is overwritten, as upstream's is.
"""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llava.conversation import conv_templates
from llava.eval.arguments import DTYPES, ModelArguments, decoding
from llava.eval.benchmark import Question
from llava.eval.inputs import batches_in_order, tokenize_prompts
from llava.eval.lines import answer_line
from llava.eval.preflight import checkpoint_hash, require_weights
from llava.eval.ranks import Ranks
from llava.eval.runner import Session, ask
from llava.eval.session import load_session
from llava.mm_utils import get_model_name_from_path

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


def make_parser(module: str, description: str | None, question_file: str) -> argparse.ArgumentParser:
    """Declare upstream's flags, with upstream's defaults but for two, and ours behind them.

    `--conv-mode` is the checkpoint's own template unless given (upstream's default asks in another wording
    than LLaVA-1.5 was trained with), and `--model-path` has to be given.
    """
    parser = argparse.ArgumentParser(prog=f"python -m llava.eval.{module}", description=description)
    parser.add_argument("--model-path", required=True, help="checkpoint directory or hub id")
    parser.add_argument("--model-base", help="base model of a checkpoint that holds only a projector or LoRA")
    parser.add_argument("--image-folder", default="", help="folder that the questions' image paths start at")
    parser.add_argument("--question-file", default=question_file)
    parser.add_argument("--answers-file", default="answer.jsonl", help="written anew")
    parser.add_argument("--conv-mode", help="conversation template; unset: the checkpoint's, else vicuna_v1")
    parser.add_argument("--num-chunks", type=int, default=1, help="parts that the questions are cut into")
    parser.add_argument("--chunk-idx", type=int, default=0, help="the part to answer, from 0")
    parser.add_argument("--temperature", type=float, default=0.2, help="0: greedy; above: sampled")
    parser.add_argument("--top_p", "--top-p", type=float)
    parser.add_argument("--num_beams", "--num-beams", type=int, default=1)
    ours = parser.add_argument_group("not upstream's")
    ours.add_argument("--batch_size", "--batch-size", type=int, default=1, help="questions asked at once")
    ours.add_argument("--num_workers", "--num-workers", type=int, default=4, help="image decoding processes")
    ours.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    ours.add_argument("--dtype", default="auto", choices=DTYPES)
    return parser


def split_list(items: Sequence[Item], num_chunks: int) -> list[list[Item]]:
    """Cut into contiguous parts of ceil(N / num_chunks) items.

    Parts run out where the size is rounded up: 9 items in 8 parts are 2, 2, 2, 2, 1, and no more.
    """
    size = max(1, -(-len(items) // num_chunks))
    return [list(items[start : start + size]) for start in range(0, len(items), size)]


def get_chunk(items: Sequence[Item], num_chunks: int, chunk_idx: int) -> list[Item]:
    """Return one of `num_chunks` parts, an empty one where parts have run out.

    Raises:
        ValueError: there is no such part.
    """
    if num_chunks < 1 or not 0 <= chunk_idx < num_chunks:
        raise ValueError(
            f"--chunk-idx {chunk_idx} of --num-chunks {num_chunks}: there are one part or more, numbered "
            "from 0"
        )
    parts = split_list(items, num_chunks)
    return parts[chunk_idx] if chunk_idx < len(parts) else []


def write_answers(args: Any, questions: Sequence[Question], *, name: str, max_new_tokens: int) -> None:
    """Ask questions and write the answers file, line by line in their order.

    Args:
        args: an object with upstream's attributes; `top_p`, `num_beams` and our own may be absent.
        questions: those of this part of the file.
        name: the driver, for the progress bar and in errors.
        max_new_tokens: longest answer.

    Raises:
        ValueError: a flag, file, question, image or checkpoint that can't be used.
    """
    arguments = _checked_arguments(args)
    output = _emptied(Path(args.answers_file))
    if not questions:
        return  # more parts than questions: an empty file, so that all parts can be joined
    session = load_session(arguments, Ranks())
    if session.label_mark:
        logger.warning(
            "the checkpoint was trained with another template than --conv-mode %s, which is used; leave the "
            "flag out to ask as in training",
            arguments.conv_mode,
        )
    generation = decoding(
        max_new_tokens, args.temperature, getattr(args, "top_p", None), getattr(args, "num_beams", 1)
    )
    _ask_all(questions, session, arguments, output=output, generation=generation, name=name)


def _checked_arguments(args: Any) -> ModelArguments:
    """Read what says how to load the checkpoint; refuse what loading would find out later."""
    arguments = ModelArguments(
        model_path=args.model_path,
        model_base=args.model_base,
        conv_mode=args.conv_mode or "auto",
        batch_size=getattr(args, "batch_size", 1),
        num_workers=getattr(args, "num_workers", 4),
        device=getattr(args, "device", "auto"),
        dtype=getattr(args, "dtype", "auto"),
    )
    if arguments.conv_mode not in ("auto", *conv_templates):
        raise ValueError(f"no template {arguments.conv_mode!r}; there are {', '.join(conv_templates)}")
    for flag, path in (("--model-path", args.model_path), ("--model-base", args.model_base)):
        if path is not None:
            checkpoint_hash(path, flag)
    require_weights(arguments)
    return arguments


def _emptied(path: Path) -> Path:
    """Make a file's folder and the file empty."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    except OSError as error:
        raise ValueError(f"can't write --answers-file {path} ({error.strerror})") from error
    return path


def _ask_all(
    questions: Sequence[Question],
    session: Session,
    arguments: ModelArguments,
    *,
    output: Path,
    generation: dict[str, Any],
    name: str,
) -> None:
    batches = batches_in_order(questions, range(len(questions)), arguments.batch_size)
    asking = ask(
        questions,
        tokenize_prompts(questions, session.style, session.tokenizer),
        batches,
        session,
        generation=generation,
        num_workers=arguments.num_workers,
        show_progress=True,
        name=name,
    )
    with output.open("a", encoding="utf-8") as file:
        for replies in asking:
            for reply in replies:
                line = answer_line(questions[reply.position], reply.text, session.model_id)
                file.write(json.dumps(line) + "\n")
            file.flush()


def mmtag_template(conv_mode: str | None, model_path: str) -> str | None:
    """Return the template for a model named `plain`: its `_mmtag` variant, as upstream switches by itself."""
    name = get_model_name_from_path(model_path)
    is_plain = "plain" in name and "finetune" not in name.lower()
    if conv_mode is None or not is_plain or "mmtag" in conv_mode:
        return conv_mode
    logger.warning("%s is a plain model: --conv-mode %s becomes %s_mmtag", name, conv_mode, conv_mode)
    return f"{conv_mode}_mmtag"


def run(
    eval_model: Callable[[Any], None], parser: argparse.ArgumentParser, words: Sequence[str] | None
) -> None:
    """Parse and answer; what is wrong with flags, files or checkpoints ends in one line."""
    logging.basicConfig(format="%(message)s")
    try:
        eval_model(parser.parse_args(words))
    except ValueError as error:
        sys.exit("; ".join([f"{parser.prog.split()[-1]}: {error}", *getattr(error, "__notes__", [])]))
