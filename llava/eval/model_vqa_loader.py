"""Upstream's driver for short answers: GQA, VQAv2, TextVQA, POPE, MME, SEED-Bench, VizWiz.

python -m llava.eval.model_vqa_loader --model-path CHECKPOINT --question-file q.jsonl --image-folder images \
    --answers-file a.jsonl --temperature 0
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.drivers import get_chunk, make_parser, mmtag_template, run, write_answers
from llava.eval.model_vqa import read_questions


def eval_model(args: Any) -> None:
    """Answer a question file; `args` has upstream's attributes (docs/evaluation.md)."""
    questions = read_questions(Path(args.question_file), Path(args.image_folder))
    args.conv_mode = mmtag_template(args.conv_mode, args.model_path)
    part = get_chunk(questions, args.num_chunks, args.chunk_idx)
    write_answers(args, part, name="model_vqa_loader", max_new_tokens=args.max_new_tokens)


def main(words: Sequence[str] | None = None) -> None:
    """Answer what the command line says."""
    parser = make_parser("model_vqa_loader", __doc__, "tables/question.jsonl")
    parser.add_argument("--max_new_tokens", "--max-new-tokens", type=int, default=128, help="longest answer")
    run(eval_model, parser, words)


if __name__ == "__main__":
    main()
