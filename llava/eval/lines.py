"""One line of an answers file: upstream's keys in upstream's order."""

import secrets
import string
from collections.abc import Mapping
from typing import Any

from llava.eval.benchmark import Question

_ID_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 22
_ORDER = (
    "question_id",
    "round_id",
    "prompt",
    "text",
    "options",
    "option_char",
    "answer_id",
    "model_id",
    "metadata",
)
"""Upstream's keys; those of MMBench come with the question's `extra`."""


def answer_line(question: Question, text: str, model_id: str) -> dict[str, Any]:
    """Write an answer as upstream's drivers do; further keys of the question follow."""
    line: Mapping[str, Any] = {
        "question_id": question.id,
        "prompt": question.stored_prompt,
        "text": text,
        "answer_id": "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH)),
        "model_id": model_id,
        "metadata": {},
        **question.extra,
    }
    return {key: line[key] for key in (*_ORDER, *line) if key in line}
