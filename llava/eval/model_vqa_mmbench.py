"""Upstream's driver for MMBench: one TAB-separated file with the images in it.

python -m llava.eval.model_vqa_mmbench --model-path CHECKPOINT --question-file mmbench_dev_20230712.tsv \
    --answers-file a.jsonl --single-pred-prompt --temperature 0
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmark import CHOICE_ANSWER
from llava.eval.benchmarks.mmbench_data import CHOICE_ANSWER_CN, asked_questions, read_table
from llava.eval.drivers import get_chunk, make_parser, mmtag_template, run, write_answers

MAX_NEW_TOKENS = 1024
_SUFFIXES = {"en": CHOICE_ANSWER, "cn": CHOICE_ANSWER_CN}


def eval_model(args: Any) -> None:
    """Answer a question file; `args` has upstream's attributes (docs/evaluation.md).

    Parts (`--num-chunks`) are cut between rows, before `--all-rounds` asks each of them several times.
    """
    suffix = _SUFFIXES[args.lang] if args.single_pred_prompt else ""
    table = read_table(Path(args.question_file))
    part = table._replace(
        rows=get_chunk(table.rows, args.num_chunks, args.chunk_idx),
        lines=get_chunk(table.lines, args.num_chunks, args.chunk_idx),
    )
    questions = asked_questions(part, suffix=suffix, all_rounds=args.all_rounds)
    args.conv_mode = mmtag_template(args.conv_mode, args.model_path)
    write_answers(args, questions, name="model_vqa_mmbench", max_new_tokens=MAX_NEW_TOKENS)


def main(words: Sequence[str] | None = None) -> None:
    """Answer what the command line says."""
    parser = make_parser("model_vqa_mmbench", __doc__, "tables/question.jsonl")
    parser.add_argument("--all-rounds", action="store_true", help="ask again with the options rotated")
    parser.add_argument(
        "--single-pred-prompt", action="store_true", help="ask for the option's letter behind every question"
    )
    parser.add_argument("--lang", choices=tuple(_SUFFIXES), default="en", help="language of that request")
    run(eval_model, parser, words)


if __name__ == "__main__":
    main()
