"""MMMU val: college questions of thirty subjects, multiple choice and open, read by MMMU's own rules."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from llava.eval.benchmark import Answer, Benchmark, Question, match_answers, percent
from llava.eval.benchmarks.mmmu_answers import chosen_letter, is_open_answer_right, open_values
from llava.eval.benchmarks.mmmu_data import (
    DOMAIN_OF,
    Gold,
    options_of_prompt,
    parquet_files,
    read_answer_dict,
    read_questions,
    several,
)
from llava.eval.reading import AnswersFile, read_answers, read_text
from llava.eval.writing import write_json

FALLBACK_SEED = 42
"""Seed of the letters drawn for multiple-choice answers that name none, as in MMMU's official evaluation."""


class Mmmu(Benchmark):
    """MMMU as LLaVA-HR asks it: the first image alone, `<image k>` left as text; answers by id."""

    name = "mmmu"
    folder = "MMMU"
    max_new_tokens = 16
    headline = "accuracy"
    published: Mapping[str, float] = {"llava-1.5-7b": 35.3, "dpn-llava-7b": 36.8}
    published_protocol = "mmmu_val"  # the seed of their fallback isn't known
    submission = "mmmu_val.json"

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        return f"mmmu_val_seed{FALLBACK_SEED}"

    def questions(self, root: Path) -> list[Question]:
        """Read the data set's parquet files, subjects in alphabetical order."""
        return read_questions(root / self.folder, with_images=True)

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read questions from the data set where it is there, else from `answer_dict_val.json` alone.

        The latter has no options: they are then taken from each answer's prompt, and where that shows none,
        the answer has to be the letter itself, as for MMMU's `eval_only` script.
        """
        folder = root / self.folder
        if parquet_files(folder):
            return read_questions(folder, with_images=False)
        return read_answer_dict(folder)

    def read_answers(self, path: Path) -> AnswersFile:
        """Read an answers file, or what `export` writes, {question id: letter or raw text}."""
        try:
            entries = json.loads(read_text(path, "answers"))
        except (ValueError, RecursionError):
            return read_answers(path)
        is_export = isinstance(entries, dict) and all(isinstance(text, str) for text in entries.values())
        if not is_export or "question_id" in entries:
            return read_answers(path)
        rows = [{"question_id": name, "prompt": "", "text": text} for name, text in entries.items()]
        return AnswersFile(path, rows)

    def gold_text(self, question: Question) -> str:
        truth = question.gold.truth
        return truth if isinstance(truth, str) else " | ".join(truth)

    def correctness(self, question: Question, answer: str) -> float:
        """Judge one answer; where a choice names no letter it is 0 here, and a drawn letter's in `score`."""
        gold: Gold = question.gold
        if gold.options is None:
            return float(is_open_answer_right(open_values(answer), gold.truth))
        letter = chosen_letter(answer, gold.options) if gold.options else answer
        return float(letter is not None and letter in several(gold.truth))

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score overall, per domain (`domain/...`) and per subject, each the mean over questions.

        `num_random_fallback` counts the answers for which a letter was drawn.
        """
        subjects: dict[str, list[float]] = {}
        drawn = 0
        for question, answer, prediction, is_drawn in _predictions(questions, answers):
            drawn += is_drawn
            is_right = 0.0
            if question.gold.options is None and not answer.is_missing:
                is_right = self.correctness(question, answer.text)
            elif prediction is not None:
                is_right = float(prediction in several(question.gold.truth))
            subjects.setdefault(question.category, []).append(is_right)
        domains: dict[str, list[float]] = {}
        for subject, scores in subjects.items():
            domains.setdefault(f"domain/{DOMAIN_OF[subject]}", []).extend(scores)
        metrics = {"accuracy": percent([score for scores in subjects.values() for score in scores])}
        metrics |= {name: percent(scores) for name, scores in (*domains.items(), *subjects.items())}
        return metrics | {"num_random_fallback": drawn}

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write `{id: letter | raw text}`, which MMMU's `eval_only` script grades; missing ones stay out."""
        questions = self.references(root, answers)
        matched = match_answers(self, questions, answers.rows)
        predictions = {
            str(question.id): answer.text if question.gold.options is None else prediction
            for question, answer, prediction, _ in _predictions(questions, matched.answers)
            if not answer.is_missing
        }
        write_json(output, predictions)
        return f"{output}: {len(predictions)} predictions for MMMU's eval_only script"


def _predictions(
    questions: Sequence[Question], answers: Sequence[Answer]
) -> Iterator[tuple[Question, Answer, str | None, bool]]:
    """Yield (question, answer, chosen letter, whether it was drawn) in the data set's order.

    The order matters: letters are drawn one after the other. A missing answer draws none.
    """
    generator = random.Random(FALLBACK_SEED)
    for question, answer in sorted(zip(questions, answers, strict=True), key=lambda pair: pair[0].category):
        if answer.is_missing or question.gold.options is None:
            yield question, answer, None, False
            continue
        options = question.gold.options or options_of_prompt(answer.prompt)
        letter = chosen_letter(answer.text, options) if options else answer.text
        if letter is not None:
            yield question, answer, letter, False
        else:
            letters = [chr(ord("A") + number) for number in range(len(options))]
            yield question, answer, generator.choice(letters), True
