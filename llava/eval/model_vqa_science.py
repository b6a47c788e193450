"""Upstream's driver for ScienceQA: questions with lettered options, half of them without an image.

python -m llava.eval.model_vqa_science --model-path CHECKPOINT --question-file llava_test_CQM-A.json \
    --image-folder images/test --answers-file a.jsonl --single-pred-prompt --temperature 0
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.benchmark import CHOICE_ANSWER, Question
from llava.eval.benchmarks.scienceqa import asked_text, read_records
from llava.eval.drivers import get_chunk, make_parser, run, write_answers

MAX_NEW_TOKENS = 1024


def eval_model(args: Any) -> None:
    """Answer a question file; `args` has upstream's attributes (docs/evaluation.md)."""
    suffix = CHOICE_ANSWER if args.single_pred_prompt else ""
    questions = read_questions(Path(args.question_file), Path(args.image_folder), suffix)
    part = get_chunk(questions, args.num_chunks, args.chunk_idx)
    write_answers(args, part, name="model_vqa_science", max_new_tokens=MAX_NEW_TOKENS)


def read_questions(path: Path, image_folder: Path, suffix: str) -> list[Question]:
    """Read records of id, conversations and, where there is one, image.

    Raises:
        ValueError: a record that isn't one, or an image that isn't there; it names the record.
    """
    questions = []
    for record in read_records(path):
        text, image = asked_text(record["conversations"][0]["value"], suffix), record.get("image")
        place = None if image is None else image_folder / image
        if place is not None and not place.is_file():
            raise ValueError(
                f"{path}: question {record['id']}: no image {place}; --image-folder is {str(image_folder)!r}"
            )
        mark = "" if image is None else f"{DEFAULT_IMAGE_TOKEN}\n"
        questions.append(Question(id=record["id"], text=text, prompt=mark + text, image=place, gold=None))
    return questions


def main(words: Sequence[str] | None = None) -> None:
    """Answer what the command line says."""
    parser = make_parser("model_vqa_science", __doc__, "tables/question.json")
    parser.add_argument(
        "--answer-prompter", action="store_true", help="upstream's; has no effect there, either"
    )
    parser.add_argument(
        "--single-pred-prompt", action="store_true", help="ask for the option's letter behind every question"
    )
    run(eval_model, parser, words)


if __name__ == "__main__":
    main()
