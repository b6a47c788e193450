"""What a benchmark is: its questions, what each benchmark file offers, and answers matched by identity."""

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""Suffix of every short-answer question, byte for byte as LLaVA-1.5 was trained with it."""

_NAMED_IN_ERRORS = 5


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a benchmark, complete: what is asked, about which image, and what is right."""

    id: str | int
    """`question_id` as the question file spells it; not unique in TextVQA."""
    text: str
    """The prompt without image token and conversation template, byte-identical to LLaVA's question file."""
    image: Path
    """Where the image lies; opened only when the question is asked."""
    gold: Any
    """What the benchmark needs to judge an answer; only the benchmark that made it reads it."""
    category: str = "default"
    """The split or type the question file names."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys of the question line, carried into the answers file (for example `grade`)."""


class Benchmark(Protocol):
    """One benchmark: knows files and scores, never a model."""

    name: str
    """Name on the command line, and of the folder under the data root."""
    max_new_tokens: int
    """Longest answer asked for."""
    headline: str
    """The metric papers report, a key of what `score` returns."""

    def protocol(self, prompts: Sequence[str]) -> str:
        """Return the label under which a score for these prompts may be compared."""
        ...

    def questions(self, root: Path) -> list[Question]:
        """Read the questions to ask, in the question file's order. `root` holds one folder per benchmark."""
        ...

    def references(self, root: Path) -> list[Question]:
        """Read the questions to score; they may come from the annotations alone."""
        ...

    def key(self, question_id: str | int, prompt: str) -> Hashable:
        """Return what identifies a question, from the two fields that every answer line has."""
        ...

    def gold_text(self, question: Question) -> str:
        """Return the right answer as one string, for people to read."""
        ...

    def correctness(self, question: Question, answer: str) -> float:
        """Judge one answer, in [0, 1]."""
        ...

    def score(self, questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
        """Return all metrics in percent, unrounded; `answers[i]` belongs to `questions[i]`."""
        ...


class MatchedAnswers(NamedTuple):
    """Answers laid beside their questions, and what did not fit."""

    texts: list[str]
    """One answer per question, "" where it is missing; the last one where there are several."""
    missing: list[str]
    duplicate: list[str]
    unknown: list[str]

    def require_complete(self, source: object) -> None:
        """Raise unless every question has exactly one answer and every answer a question."""
        problems = [
            f"{len(ids)} {problem} ({_some(ids)})"
            for problem, ids in (
                ("question(s) without an answer", self.missing),
                ("question(s) answered twice or more", self.duplicate),
                ("answer(s) to no question of this benchmark", self.unknown),
            )
            if ids
        ]
        if problems:
            raise ValueError(
                f"{source}: {'; '.join(problems)}. Expected one answer per question; check that the file "
                "is of this benchmark and complete, or pass --allow_missing (it becomes part of the label)"
            )


def match_answers(
    benchmark: Benchmark, questions: Sequence[Question], rows: Sequence[Mapping[str, Any]]
) -> MatchedAnswers:
    """Lay answer lines (in any order) beside their questions by the benchmark's key."""
    texts: dict[int, str] = {}
    duplicate: list[str] = []
    unknown: list[str] = []
    for row, position in zip(rows, place_rows(benchmark, questions, rows), strict=True):
        if position is None:
            unknown.append(str(row["question_id"]))
            continue
        if position in texts:
            duplicate.append(str(row["question_id"]))
        texts[position] = row["text"]
    return MatchedAnswers(
        texts=[texts.get(position, "") for position in range(len(questions))],
        missing=[str(question.id) for position, question in enumerate(questions) if position not in texts],
        duplicate=duplicate,
        unknown=unknown,
    )


def place_rows(
    benchmark: Benchmark, questions: Sequence[Question], rows: Sequence[Mapping[str, Any]]
) -> list[int | None]:
    """Return the question each answer line belongs to, None where it belongs to none.

    Where the file asks one thing twice (same key), the first line goes to the first, the next to the second.
    """
    free: dict[Hashable, list[int]] = {}
    for position in reversed(range(len(questions))):
        free.setdefault(benchmark.key(questions[position].id, questions[position].text), []).append(position)
    places: list[int | None] = []
    for row in rows:
        waiting = free.get(benchmark.key(row["question_id"], row["prompt"]))
        if waiting is None:
            places.append(None)
        else:
            places.append(waiting.pop() if len(waiting) > 1 else waiting[0])
    return places


def percent(values: Sequence[float]) -> float:
    """Return the mean in percent; 0.0 of nothing."""
    return 100.0 * sum(values) / len(values) if values else 0.0


def read_json(path: Path, purpose: str) -> Any:
    """Read a whole JSON file; errors name the file and what it is for."""
    try:
        return json.loads(_read_text(path, purpose))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}); expected {purpose}"
        ) from error


def read_json_lines(path: Path, purpose: str, required: Sequence[str]) -> list[dict[str, Any]]:
    """Read one JSON object per line, each with the required keys; errors name the file and the line."""
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_read_text(path, purpose).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not valid JSON ({error.msg}); expected {purpose}") from error
        absent = [key for key in required if key not in row] if isinstance(row, dict) else list(required)
        if absent:
            raise ValueError(
                f"{path}:{number}: no {', '.join(absent)}; expected {purpose} with {list(required)}"
            )
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: empty; expected {purpose}, one JSON object per line")
    return rows


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Read an answers file: upstream's schema, of which three keys matter for scoring."""
    rows = read_json_lines(path, "answers", ("question_id", "prompt", "text"))
    for number, row in enumerate(rows, start=1):
        if not (isinstance(row["text"], str) and isinstance(row["prompt"], str)):
            raise ValueError(
                f"{path}: answer {number} (question {row['question_id']}): prompt and text must be strings"
            )
    return rows


def read_question_lines(path: Path) -> list[dict[str, Any]]:
    """Read one of LLaVA's question files."""
    return read_json_lines(path, "LLaVA's question file", ("question_id", "image", "text"))


def extra_keys(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a question line holds beyond LLaVA's own keys."""
    return {
        key: value for key, value in line.items() if key not in ("question_id", "image", "text", "category")
    }


def _read_text(path: Path, purpose: str) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected {purpose} (see playground/README.md)")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error}); expected {purpose}") from error


def _some(ids: Sequence[str]) -> str:
    rest = len(ids) - _NAMED_IN_ERRORS
    return ", ".join(ids[:_NAMED_IN_ERRORS]) + (f" and {rest} more" if rest > 0 else "")
