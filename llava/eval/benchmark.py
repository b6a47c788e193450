"""What a benchmark is: its questions, what each benchmark file offers, and answers matched by identity."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from llava.eval.reading import AnswersFile, read_answers

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
"""Suffix of every short-answer question, byte for byte as LLaVA-1.5 was trained with it."""
CHOICE_ANSWER = "\nAnswer with the option's letter from the given choices directly."
"""Suffix of every multiple-choice question, likewise."""


_LONGEST_NAME = 300


class NotScoredError(ValueError):
    """There is nothing public to score these answers with; the message says how to get a score."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a benchmark, complete: what is asked, about which image, and what is right."""

    id: str | int
    """`question_id` as the question file spells it; not unique in TextVQA."""
    text: str
    """What is asked, suffix included, without image token and template: byte-identical to LLaVA's."""
    image: Path | bytes | None
    """Where the image lies (`Path`, opened only when the question is asked), the bytes of an image file
    (`bytes`, where the data set holds them itself), or None for a question without an image."""
    gold: Any
    """What the benchmark needs to judge an answer; only the benchmark that made it reads it."""
    prompt: str | None = None
    """What the answers file holds as `prompt` where that isn't `text` (ScienceQA, MMBench)."""
    category: str = "default"
    """The split or type the question file names."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further keys for the answers file (for example `grade`, or MMBench's `options`)."""

    @property
    def stored_prompt(self) -> str:
        """What the answers file holds as `prompt`."""
        return self.text if self.prompt is None else self.prompt


class Answer(NamedTuple):
    """What was answered to one question."""

    text: str = ""
    """The model's words; "" where the answer is missing."""
    prompt: str = ""
    """The prompt as the answer line states it."""
    is_missing: bool = True
    row: Mapping[str, Any] = {}
    """The whole answer line, for keys of one benchmark."""


class Benchmark(ABC):
    """One benchmark: knows files and scores, never a model."""

    name: str
    """Name on the command line."""
    folder: str
    """Name of its folder under the data root."""
    headline: str
    """The metric papers report, a key of what `score` returns."""
    max_new_tokens: int = 128
    """Longest answer asked for. Answers are greedy unless the command line says otherwise."""
    published: Mapping[str, float] = {}
    """Headline values to set beside ours: `llava-1.5-7b` and `dpn-llava-7b`, in the headline's unit."""
    published_protocol: str = ""
    """The label they were measured under; they may stand beside no other."""
    submission: str = ""
    """File name for what `export` writes; "" where there is nothing to submit."""
    skips_bad_lines: bool = False
    """Whether `export` passes over lines that are no answer, as upstream's converter of this benchmark."""

    def of_split(self, split: str) -> Self:
        """Return this benchmark on another split of its data (for example `val`)."""
        raise ValueError(f"{self.name} has no split {split!r} to choose; leave the split out")

    def of_grades(self, path: Path) -> Self:
        """Return this benchmark with a judge's grades from one file."""
        raise ValueError(f"{self.name} takes no grades (--grades {path}): it needs no judge")

    def read_answers(self, path: Path) -> AnswersFile:
        """Read what is to be scored or exported: LLaVA's answers file, or what else the benchmark knows."""
        return read_answers(path)

    @abstractmethod
    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        """Return the label under which a score may be compared.

        Args:
            questions: what is scored.
            prompts: `prompt` of every answer line there is.
        """

    @abstractmethod
    def questions(self, root: Path) -> list[Question]:
        """Read the questions to ask, in the question file's order. `root` holds one folder per benchmark."""

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read the questions to score; they may come from the annotations alone.

        Where several splits lie under `root`, these are the questions that `answers` belongs to; where a
        judge graded `answers`, the grades are in `gold`.
        """
        return self.questions(root)

    def key(self, question_id: str | int, prompt: str) -> Hashable:
        """Return what identifies a question, from the two fields that every answer line has."""
        return str(question_id)

    @abstractmethod
    def gold_text(self, question: Question) -> str:
        """Return the right answer as one string, for people to read; "" where it isn't public."""

    @abstractmethod
    def correctness(self, question: Question, answer: str) -> float | None:
        """Judge one answer, in [0, 1]; None where that can't be done without a server or a judge."""

    @abstractmethod
    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Return all metrics, in percent and unrounded where they aren't counts or points.

        `answers[i]` belongs to `questions[i]`, which may be any part of the benchmark: metrics of nothing are
        0.0 or left out.

        Raises:
            NotScoredError: the right answers aren't public, or the judge's grades aren't there.
        """

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write the submission or grader file as upstream's converter does.

        Returns:
            one line that says what was written, for people to read.
        """
        raise ValueError(
            f"{self.name} has no submission: its answers are scored here, by python -m llava.eval.score"
        )


class MatchedAnswers(NamedTuple):
    """Answers laid beside their questions, and what did not fit."""

    answers: list[Answer]
    """One answer per question; the last one where there are several."""
    missing: list[str]
    duplicate: list[str]
    unknown: list[str]

    def require_complete(self, source: object) -> None:
        """Raise unless every question has exactly one answer and every answer a question."""
        problems = [
            f"{len(ids)} {problem} ({some(ids)})"
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
    found: dict[int, Answer] = {}
    duplicate: list[str] = []
    unknown: list[str] = []
    for row, position in zip(rows, place_rows(benchmark, questions, rows), strict=True):
        if position is None:
            unknown.append(str(row["question_id"]))
            continue
        if position in found:
            duplicate.append(str(row["question_id"]))
        found[position] = Answer(row["text"], row["prompt"], is_missing=False, row=row)
    return MatchedAnswers(
        answers=[found.get(position, Answer()) for position in range(len(questions))],
        missing=[str(question.id) for position, question in enumerate(questions) if position not in found],
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
    for position, question in reversed(list(enumerate(questions))):
        free.setdefault(benchmark.key(question.id, question.stored_prompt), []).append(position)
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


def some(names: Sequence[str], *, named: int = 5) -> str:
    """Name the first few and count the rest; names come from files, so odd ones are quoted."""
    rest = len(names) - named
    shown = [
        name if name.isprintable() and len(name) <= _LONGEST_NAME else repr(name[:_LONGEST_NAME])
        for name in names[:named]
    ]
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")
