"""Upstream's driver for open questions: MM-Vet, and any question file of the same kind.

python -m llava.eval.model_vqa --model-path CHECKPOINT --question-file q.jsonl --image-folder images \
    --answers-file a.jsonl --temperature 0
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llava.eval.benchmark import Question
from llava.eval.drivers import get_chunk, make_parser, run, write_answers
from llava.eval.reading import read_question_lines

MAX_NEW_TOKENS = 1024


def eval_model(args: Any) -> None:
    """Answer a question file; `args` has upstream's attributes (docs/evaluation.md)."""
    questions = read_questions(Path(args.question_file), Path(args.image_folder))
    part = get_chunk(questions, args.num_chunks, args.chunk_idx)
    write_answers(args, part, name="model_vqa", max_new_tokens=MAX_NEW_TOKENS)


def read_questions(path: Path, image_folder: Path) -> list[Question]:
    """Read LLaVA's question lines: question_id, image, text.

    Raises:
        ValueError: a line that isn't one, or an image that isn't there; it names line or question.
    """
    questions = []
    for line in read_question_lines(path):
        image = image_folder / line["image"]
        if not image.is_file():
            raise ValueError(
                f"{path}: question {line['question_id']}: no image {image}; --image-folder is "
                f"{str(image_folder)!r}"
            )
        questions.append(Question(id=line["question_id"], text=line["text"], image=image, gold=None))
    return questions


def main(words: Sequence[str] | None = None) -> None:
    """Answer what the command line says."""
    run(eval_model, make_parser("model_vqa", __doc__, "tables/question.jsonl"), words)


if __name__ == "__main__":
    main()
