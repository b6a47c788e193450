"""MM-Vet: free answers, graded by GPT-4 outside of this program and added up here."""

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llava.eval.benchmark import Answer, Benchmark, NotScoredError, Question, percent, some
from llava.eval.reading import (
    AnswersFile,
    extra_keys,
    read_answers,
    read_json,
    read_question_lines,
    read_text,
    require_fields,
)
from llava.eval.writing import write_text

_GRADE_FILE = re.compile(r"(?P<model>.*)_(?P<judge>[^_]+)-grade-(?P<runs>\d+)runs?\.json")
_FIELDS = {"imagename": str, "question": str, "answer": str, "capability": list}
_GRADER = "the official grader (github.com/yuweihao/MM-Vet, or huggingface.co/spaces/whyu/MM-Vet_Evaluator)"


class Sample(NamedTuple):
    """What is known about one question."""

    answer: str
    capabilities: tuple[str, ...]
    """Of rec, ocr, know, gen, spat, math; sorted."""
    grades: tuple[float, ...] = ()
    """What the judge gave in every run, in [0, 1]; () where nothing is graded yet."""
    judge: str = ""


class MmVet(Benchmark):
    """MM-Vet in the layout of LLaVA's scripts (`mm-vet/`), with grade files of the official grader."""

    name = "mmvet"
    folder = "mm-vet"
    headline = "total"
    max_new_tokens = 1024
    published: Mapping[str, float] = {"llava-1.5-7b": 31.1, "dpn-llava-7b": 28.7}
    published_protocol = "mmvet+judge_gpt-4-0613"
    submission = "mmvet_answers.json"

    def __init__(self, grades: Path | None = None) -> None:
        self.grades = grades

    def of_grades(self, path: Path) -> "MmVet":
        return MmVet(path)

    def read_answers(self, path: Path) -> AnswersFile:
        """Read an answers file, or a grade file, which then stands for the answers it grades."""
        if not _is_grade_file(read_text(path, "answers")):
            return read_answers(path)
        ids = _read_grades(path).scores
        rows = [{"question_id": key.removeprefix("v1_"), "prompt": "", "text": ""} for key in ids]
        return AnswersFile(path, rows)

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        """Say who judged, and how often where that is more than once."""
        graded = next((question.gold for question in questions if question.gold.grades), None)
        if graded is None:
            return "mmvet-ungraded"
        runs = len(graded.grades)
        return f"mmvet+judge_{graded.judge}" + (f"_{runs}runs" if runs > 1 else "")

    def questions(self, root: Path) -> list[Question]:
        """Read LLaVA's question file where there is one, else the official mm-vet.json."""
        folder = root / self.folder
        official = _official(folder / "mm-vet.json")
        listed = folder / "llava-mm-vet.jsonl"
        if not listed.exists():
            return [
                Question(
                    id=int(key.removeprefix("v1_")),
                    text=entry["question"],
                    image=folder / "images" / entry["imagename"],
                    gold=_sample(entry),
                )
                for key, entry in official.items()
            ]
        lines = read_question_lines(listed)
        unknown = [str(line["question_id"]) for line in lines if f"v1_{line['question_id']}" not in official]
        if unknown:
            raise ValueError(f"{listed}: {len(unknown)} questions are not in mm-vet.json ({some(unknown)})")
        return [
            Question(
                id=line["question_id"],
                text=line["text"],
                image=folder / "images" / line["image"],
                gold=_sample(official[f"v1_{line['question_id']}"]),
                category=line.get("category", "default"),
                extra=extra_keys(line),
            )
            for line in lines
        ]

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read the questions, with the grades of these answers where a grade file is found."""
        questions = self.questions(root)
        path = self.grades
        if path is None and answers is not None:
            path = _find_grades(root / self.folder / "results", answers.path)
        if path is None:
            return questions
        grades = _read_grades(path)
        return [
            replace(
                question,
                gold=question.gold._replace(
                    grades=grades.scores.get(f"v1_{question.id}", ()), judge=grades.judge
                ),
            )
            for question in questions
        ]

    def gold_text(self, question: Question) -> str:
        return question.gold.answer

    def correctness(self, question: Question, answer: str) -> float | None:
        return statistics.fmean(question.gold.grades) if question.gold.grades else None

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Average the grades: `total`, each capability, each exact set of them, and the runs' spread."""
        ungraded = [str(question.id) for question in questions if not question.gold.grades]
        if ungraded:
            raise NotScoredError(
                f"{len(ungraded)} of {len(questions)} MM-Vet answers have no grade ({some(ungraded)}). Write "
                "<name>.json with python -m llava.eval.export mmvet, give it to " + _GRADER + " and put the "
                "<name>_<judge>-grade-<N>runs.json that it makes into mm-vet/results/ (<name> as the answers "
                "file) or beside the answers, or name it with --grades"
            )
        groups: dict[str, list[float]] = {"total": []}
        for question in questions:
            needed = question.gold.capabilities
            for group in ("total", *needed, f"integration/{'+'.join(needed)}"):
                groups.setdefault(group, []).append(statistics.fmean(question.gold.grades))
        runs = [percent(run) for run in zip(*(question.gold.grades for question in questions), strict=True)]
        spread = {"std": statistics.pstdev(runs) if runs else 0.0}
        return {group: percent(values) for group, values in groups.items()} | spread

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write {"v1_<question id>": answer}, what the grader takes."""
        texts = {f"v1_{row['question_id']}": row["text"] for row in answers.rows}
        write_text(output, json.dumps(texts, indent=2))
        return f"{len(texts)} answers for {_GRADER}"


class _Grades(NamedTuple):
    """A grade file."""

    scores: dict[str, tuple[float, ...]]
    """"v1_<question id>" -> grade of every run."""
    judge: str


def _is_grade_file(text: str) -> bool:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    is_object = isinstance(content, dict) and bool(content)
    return is_object and all(isinstance(entry, dict) and "score" in entry for entry in content.values())


def _find_grades(folder: Path, answers: Path) -> Path | None:
    """Return the one grade file that carries the name of the answers file; None where there is none.

    Beside the answers it may carry the name of the submission as well.
    """
    if _is_grade_file(read_text(answers, "answers")):
        return answers
    names = {folder: {answers.stem}} | {answers.parent: {answers.stem, Path(MmVet.submission).stem}}
    found = [
        path
        for place, models in names.items()
        for path in sorted(place.glob("*-grade-*.json"))
        if (parts := _GRADE_FILE.fullmatch(path.name)) and parts["model"] in models
    ]
    if len(found) > 1:
        paths = ", ".join(str(path) for path in found)
        raise ValueError(f"{answers}: there are {len(found)} grade files ({paths}); name one with --grades")
    return found[0] if found else None


def _read_grades(path: Path) -> _Grades:
    content = read_json(path, "a grade file of MM-Vet's official grader")
    if not isinstance(content, dict) or not content:
        raise ValueError(f'{path}: expected {{"v1_0": {{"score": [...]}}, ...}}, the grader\'s file')
    scores: dict[str, tuple[float, ...]] = {}
    for key, entry in content.items():
        grades = entry.get("score") if isinstance(entry, dict) else None
        if not isinstance(grades, list) or not all(_is_grade(grade) for grade in grades):
            raise ValueError(f'{path}: {key}: expected "score": a list of numbers in [0, 1], one per run')
        scores[key] = tuple(float(grade) for grade in grades)
    runs = max(map(len, scores.values()))
    short = [key for key, grades in scores.items() if len(grades) != runs]
    if short:
        raise ValueError(f"{path}: {some(short)} have fewer than {runs} grades; let the grader finish")
    parts = _GRADE_FILE.fullmatch(path.name)
    return _Grades(scores, parts["judge"] if parts else "unknown")


def _is_grade(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _official(path: Path) -> dict[str, Mapping[str, Any]]:
    content = read_json(path, "MM-Vet's official mm-vet.json")
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: expected an object {{v1_<number>: sample}} with at least one sample")
    for key, entry in content.items():
        if not key.removeprefix("v1_").isdecimal():
            raise ValueError(f"{path}: sample {key}: expected v1_<number>")
        require_fields(entry, f"{path}: sample {key}", _FIELDS)
        if not all(isinstance(capability, str) for capability in entry["capability"]):
            raise ValueError(f"{path}: sample {key}: every capability must be a string")
    return content


def _sample(entry: Mapping[str, Any]) -> Sample:
    return Sample(entry["answer"], tuple(sorted(entry["capability"])))
