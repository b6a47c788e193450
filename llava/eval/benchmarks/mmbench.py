"""MMBench dev: a question counts as right if it is answered right under every rotation of its options."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from llava.eval.benchmark import (
    CHOICE_ANSWER,
    Answer,
    Benchmark,
    NotScoredError,
    Question,
    match_answers,
    percent,
)
from llava.eval.benchmarks.mmbench_data import (
    CHOICE_ANSWER_CN,
    Table,
    asked_questions,
    gold_questions,
    read_table,
)
from llava.eval.reading import AnswersFile

_RELEASES = ("dev_20230712", "dev_en_20231003")
"""LLaVA's file and LLaVA-HR's; the first that is there is used."""
_ROTATION = 1_000_000
"""A row's index is its question's index plus this times the number of the rotation."""

_CHOICES = "ABCDE"
_LETTER_FORMS = ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_LONG_ANSWER = 3

_NOT_SUBMITTED = ("hint", "category", "source", "image", "comment", "l2-category")
_PREDICTION_COLUMN = 6


class MmBench(Benchmark):
    """MMBench in LLaVA's layout; letters are read by rules alone, no judge is asked."""

    name = "mmbench"
    folder = "mmbench"
    max_new_tokens = 1024
    headline = "accuracy"
    published: Mapping[str, float] = {"llava-1.5-7b": 64.3, "dpn-llava-7b": 65.8}
    published_protocol = "mmbench_dev_server"  # the server asks a judge where the rules find no letter
    submission = "mmbench_upload.xlsx"

    def __init__(self, split: str | None = None) -> None:
        self._split = split

    def of_split(self, split: str) -> Self:
        """Return the benchmark on `mmbench_<split>.tsv`, for example `dev_en_20231003`."""
        return type(self)(split.removeprefix("mmbench_").removesuffix(".tsv"))

    def protocol(self, questions: Sequence[Question], prompts: Sequence[str]) -> str:
        release = questions[0].gold.release if questions else f"mmbench_{_RELEASES[0]}"
        return f"{'mmbench_dev' if release.endswith(_RELEASES[0]) else release}_circular_rules"

    def questions(self, root: Path) -> list[Question]:
        """Read every row, rotations included, in file order; Chinese files get the Chinese suffix."""
        table = self._table(root)
        is_chinese = "_cn_" in f"{table.path.stem}_"
        return asked_questions(table, suffix=CHOICE_ANSWER_CN if is_chinese else CHOICE_ANSWER)

    def references(self, root: Path, answers: AnswersFile | None = None) -> list[Question]:
        """Read every row without prompt and image."""
        return gold_questions(self._table(root))

    def gold_text(self, question: Question) -> str:
        return question.gold.answer or ""

    def correctness(self, question: Question, answer: str) -> float | None:
        """Judge one row on its own; None where the right answer isn't public."""
        if question.gold.answer is None:
            return None
        return float(chosen_letter(answer, question.gold.options) == question.gold.answer)

    def score(self, questions: Sequence[Question], answers: Sequence[Answer]) -> dict[str, float]:
        """Score all questions, and those of each `category/` and `l2/` category.

        `num_undecided` counts the answered rows in which the rules find no option; they are wrong.
        """
        if any(question.gold.answer is None for question in questions):
            raise NotScoredError(
                f"{questions[0].gold.release}: its right answers aren't public; write a submission with "
                "python -m llava.eval.export mmbench, and upload it to MMBench's server"
            )
        rotations: dict[int, list[bool]] = {}
        groups: dict[int, tuple[str | None, str | None]] = {}
        undecided = 0
        for question, answer in zip(questions, answers, strict=True):
            letter = None if answer.is_missing else chosen_letter(answer.text, question.gold.options)
            undecided += letter is None and not answer.is_missing
            number = int(question.id) % _ROTATION
            rotations.setdefault(number, []).append(letter == question.gold.answer)
            groups.setdefault(number, (question.gold.category, question.gold.l2_category))
        scores: dict[str, list[float]] = {"accuracy": []}
        for number, are_right in rotations.items():
            category, l2_category = groups[number]
            names = ["accuracy"]
            names += [] if category is None else [f"category/{category}"]
            names += [] if l2_category is None else [f"l2/{l2_category}"]
            for name in names:
                scores.setdefault(name, []).append(all(are_right))
        return {name: percent(values) for name, values in scores.items()} | {"num_undecided": undecided}

    def export(self, root: Path, answers: AnswersFile, output: Path) -> str:
        """Write the workbook for MMBench's server: the rows in file order, with an empty cell where none is.

        The last answer to a row counts.
        """
        table = self._table(root)
        matched = match_answers(self, gold_questions(table), answers.rows)
        write_workbook(output, table, [answer.text for answer in matched.answers])
        return f"{output}: {len(table.rows)} rows for MMBench's server"

    def _table(self, root: Path) -> Table:
        releases = _RELEASES if self._split is None else (self._split,)
        paths = [
            root / folder / f"mmbench_{release}.tsv"
            for release in releases
            for folder in (self.folder, f"{self.folder}_cn")
        ]
        return read_table(next((path for path in paths if path.exists()), paths[0]))


def chosen_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """Return the option that an answer names, None where the rules can't tell.

    First a letter standing alone, if it is the only one (an `A` among more than three words may be an article
    and doesn't count); then a letter with marks around it, form by form; then the one option whose text is
    part of the answer. Letters beyond the options count as named.
    """
    words = set(answer.split())
    alone = [letter for letter in _CHOICES if letter in words]
    if len(alone) == 1 and not (alone == ["A"] and len(answer.split()) > _LONG_ANSWER):
        return alone[0]
    for form in _LETTER_FORMS:
        marked = [letter for letter in _CHOICES if form.format(letter) in words]
        if len(marked) == 1:
            return marked[0]
    named = [letter for letter, option in options.items() if option.lower() in answer.lower()]
    return named[0] if len(named) == 1 else None


def write_workbook(path: Path, table: Table, predictions: Sequence[str]) -> None:
    """Write what the server takes: the table without the columns it doesn't want, and predictions.

    Raises:
        ValueError: openpyxl isn't installed.
        OSError: the file can't be written.
    """
    try:
        from openpyxl import Workbook  # noqa: PLC0415  nothing but this needs it
    except ImportError as error:
        raise ValueError("writing .xlsx files needs openpyxl; install it with: scripts/setup.sh") from error
    columns = [name for name in table.columns if name not in _NOT_SUBMITTED]
    columns.insert(_PREDICTION_COLUMN, "prediction")
    workbook = Workbook(write_only=True)
    sheet = workbook.create_sheet("Sheet1")
    sheet.append([_text_cell(sheet, name) for name in columns])
    for row, prediction in zip(table.rows, predictions, strict=True):
        cells: dict[str, Any] = {**row, "prediction": prediction or None}
        index = int(cells["index"])
        sheet.append([index if name == "index" else _text_cell(sheet, cells[name]) for name in columns])
    partial = path.with_name(path.name + ".partial")
    workbook.save(partial)
    partial.replace(path)


def _text_cell(sheet: Any, text: str | None) -> Any:
    """Return a cell that holds text as text, a leading "=" too, without control characters."""
    from openpyxl.cell import WriteOnlyCell  # noqa: PLC0415
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # noqa: PLC0415

    if text is None:
        return None
    encodable = text.encode("utf-8", "ignore").decode("utf-8")  # a lone surrogate makes the file unreadable
    cell = WriteOnlyCell(sheet, value=ILLEGAL_CHARACTERS_RE.sub("", encodable))
    cell.data_type = "s"
    return cell
