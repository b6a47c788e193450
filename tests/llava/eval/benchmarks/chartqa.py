"""ChartQA test: questions about charts, where a number may be five percent off."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.eval.benchmark import SHORT_ANSWER, Answer, Benchmark, Question, percent
from llava.eval.reading import AnswersFile, read_json
from llava.eval.writing import write_text

SPLITS = ("human", "augmented")
TOLERANCE = 0.05


class ChartQa(Benchmark):
    """ChartQA in its official layout: test_human.json, test_augmented.json, png/."""

    name = folder = "chartqa"
    headline = "accuracy"
    published: Mapping[str, float] = {}
    submission = "chartqa_answers.json"

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        return "chartqa_test_relaxed"

    def questions(self, root: Path) -> list[Question]:
        folder = root / self.folder
        questions = []
        for split in SPLITS:
            path = folder / f"test_{split}.json"
            for number, entry in enumerate(read_json(path, f"ChartQA's {split} questions"), start=1):
                absent = [key for key in ("imgname", "query", "label") if key not in entry]
                if absent:
                    raise ValueError(f"{path}: entry {number} has no {', '.join(absent)}")
                questions.append(
                    Question(
                        id=f"{split}_{number}",
                        text=entry["query"] + SHORT_ANSWER,
                        image=folder / "png" / entry["imgname"],
                        gold=entry["label"],
                        category=split,
                    )
                )
        return questions

    def gold_text(self, question: Question) -> str:
        return question.gold

    def correctness(self, question: Question, answer: str) -> float:
        return float(is_close(answer, question.gold))

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        scores: dict[str, list[float]] = {"accuracy": []}
        for question, answer in zip(questions, answers, strict=True):
            for name in ("accuracy", question.category):
                scores.setdefault(name, []).append(self.correctness(question, answer.text))
        return {name: percent(values) for name, values in scores.items()}

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        texts = {str(row["question_id"]): row["text"] for row in answers.rows}
        write_text(output, json.dumps(texts))
        return f"{len(texts)} answers"


def is_close(answer: str, gold: str) -> bool:
    """Compare numbers within five percent of the right one, and words as they are but for capitals."""
    try:
        given, right = float(answer.rstrip("%")), float(gold.rstrip("%"))
    except ValueError:
        return answer.strip().lower() == gold.strip().lower()
    return abs(given - right) <= TOLERANCE * abs(right)
