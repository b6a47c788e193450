"""MMBench's TSV files: one question under one rotation of its options per row, with its image in base64."""

import base64
import binascii
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from llava.eval.benchmark import CHOICE_ANSWER, Question
from llava.eval.reading import MissingDataError

CHOICE_ANSWER_CN = "\n请直接回答选项字母。"
"""The letter suffix of the Chinese files."""
OPTION_LETTERS = "ABCD"

_REQUIRED = ("index", "question", "A", "B")
_ABSENT = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
        *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""What upstream's table reader (pandas) takes for an empty cell."""
_NO_OPTION = ("nan", "none")


class Table(NamedTuple):
    """A TSV file as upstream reads it."""

    path: Path
    columns: list[str]
    rows: list[dict[str, str | None]]
    """Cells by column, None where empty; `index` is a whole number's digits and unique."""
    lines: list[int]
    """The line each row ends on, for errors."""


class Gold(NamedTuple):
    """What scoring needs of a row."""

    answer: str | None
    """The right letter; None where it isn't public."""
    options: dict[str, str]
    """Options by letter, as scoring sees them: the word "none" is one here, but not in prompts."""
    category: str | None
    l2_category: str | None
    release: str
    """Name of the file without its suffix."""


def read_table(path: Path) -> Table:
    """Read a TSV file; every error names the line."""
    csv.field_size_limit(sys.maxsize)  # an image is one field
    rows: list[dict[str, str | None]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            columns = next(reader, [])
            if absent := [name for name in _REQUIRED if name not in columns]:
                raise ValueError(f"{path}:1: no column {', '.join(absent)}; expected a TSV file of MMBench")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise ValueError(
                        f"{path}:{reader.line_num}: {len(cells)} cells, expected {len(columns)} as in "
                        "line 1; is the file cut off? Download it again"
                    )
                pairs = zip(columns, cells, strict=True)
                rows.append({name: None if cell in _ABSENT else cell for name, cell in pairs})
                lines.append(reader.line_num)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingDataError(
            f"{path}: no such file; expected MMBench's questions (see playground/README.md)"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: can't be read ({error}); expected a TSV file of MMBench") from error
    _require_indices(path, rows, lines)
    return Table(path, columns, rows, lines)


def gold_questions(table: Table) -> list[Question]:
    """Return what scoring needs of every row: no prompt, no image."""
    return [
        Question(id=int(row["index"] or 0), text="", image=None, gold=_gold(table, row)) for row in table.rows
    ]


def asked_questions(table: Table, *, suffix: str = CHOICE_ANSWER, all_rounds: bool = False) -> list[Question]:
    """Return the questions as LLaVA's driver asks them.

    Args:
        table: from `read_table`.
        suffix: what is asked behind the options and not stored; "" for none.
        all_rounds: ask each row once more per option, options rotated left by one each time. Ids then repeat.

    Raises:
        ValueError: a row has no question, no option or no image.
    """
    questions = []
    for row, line in zip(table.rows, table.lines, strict=True):
        options = _shown_options(row)
        if not options or row["question"] is None:
            raise ValueError(f"{table.path}:{line}: no question, or no option A")
        image = _image(f"{table.path}:{line}", row.get("image"))
        for number in range(len(options) if all_rounds else 1):
            shown = options[number:] + options[:number]
            letters = OPTION_LETTERS[number : len(options)] + OPTION_LETTERS[:number]
            prompt = _prompt(row, shown)
            questions.append(
                Question(
                    id=int(row["index"] or 0),
                    text=prompt + suffix,
                    image=image,
                    gold=_gold(table, row),
                    prompt=prompt,
                    extra={"round_id": number, "options": shown, "option_char": list(letters)},
                )
            )
    return questions


def _prompt(row: dict[str, str | None], shown: Sequence[str]) -> str:
    """Put hint, question and lettered options on lines of their own."""
    hint = row.get("hint")
    parts = [] if hint is None or hint.lower() in _NO_OPTION else [hint]
    parts.append(row["question"] or "")
    parts += [f"{letter}. {option}" for letter, option in zip(OPTION_LETTERS, shown, strict=False)]
    return "\n".join(parts)


def _shown_options(row: dict[str, str | None]) -> list[str]:
    """Return the options up to the first that is missing."""
    options: list[str] = []
    for letter in OPTION_LETTERS:
        option = row.get(letter)
        if option is None or option.lower() in _NO_OPTION:
            break
        options.append(option)
    return options


def _gold(table: Table, row: dict[str, str | None]) -> Gold:
    options = {letter: option for letter in OPTION_LETTERS if (option := row.get(letter)) is not None}
    l2_category = row.get("l2-category") or row.get("L2-category")
    return Gold(row.get("answer"), options, row.get("category"), l2_category, table.path.stem)


def _image(place: str, cell: str | None) -> bytes:
    try:
        image = base64.b64decode(cell or "", validate=True)
    except binascii.Error as error:
        raise ValueError(f"{place}: the image is not base64 ({error}); download the file again") from error
    if not image:
        raise ValueError(f"{place}: no image; expected base64 in the column image")
    return image


def _require_indices(path: Path, rows: Sequence[dict[str, str | None]], lines: Sequence[int]) -> None:
    if not rows:
        raise ValueError(f"{path}: no question; expected a TSV file of MMBench")
    seen: set[str] = set()
    for row, line in zip(rows, lines, strict=True):
        index = row["index"] or ""
        if not (index.isascii() and index.isdigit()) or str(int(index)) in seen:
            raise ValueError(f"{path}:{line}: index {index!r}; expected a whole number, each one once")
        seen.add(str(int(index)))
