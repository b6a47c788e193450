"""The answer files of one benchmark in one run: written in parts, resumed after a kill, merged in order.

run.json               what the answers depend on; another checkpoint or setting is refused
answers.rankN.jsonl    what rank N has answered so far, one line per answer, flushed after every batch
answers.jsonl          all answers in question order, once every rank is done
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llava.eval.benchmark import Benchmark, Question, place_rows
from llava.eval.writing import write_json


class AnswerFiles(NamedTuple):
    """The files under one folder, as one rank uses them."""

    folder: Path
    rank: int

    @property
    def merged(self) -> Path:
        return self.folder / "answers.jsonl"

    @property
    def own(self) -> Path:
        return self.folder / f"answers.rank{self.rank}.jsonl"

    def parts(self) -> list[Path]:
        """Return the part files of all ranks, of this launch and earlier ones."""
        return sorted(self.folder.glob("answers.rank*.jsonl"))

    def claim(self, fingerprint: Mapping[str, Any]) -> None:
        """Make the folder and say what its answers depend on; refuse a folder with other answers in it."""
        path = self.folder / "run.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.own.open("a").close()
            before = self.fingerprint()
            if before != fingerprint and self.read():
                _refuse(path, before, fingerprint)
            if self.rank == 0:
                write_json(path, fingerprint)
        except OSError as error:
            raise ValueError(
                f"can't write answers to {self.folder} ({error.strerror}); choose another --output_dir"
            ) from error

    def fingerprint(self) -> dict[str, Any]:
        """Return what `claim` wrote down; {} before it."""
        path = self.folder / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def read(self) -> list[dict[str, Any]]:
        """Return every whole answer line there is; a torn last line (a killed rank) is left out."""
        files = [self.merged, *self.parts()] if self.merged.exists() else self.parts()
        return [row for path in files for row in _whole_lines(path)[0]]

    def repair(self) -> None:
        """Cut a torn last line off this rank's part, so that the next answer starts on its own line."""
        length = _whole_lines(self.own)[1]
        with self.own.open("r+b") as file:
            file.truncate(length)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add answers to this rank's part and hand them to the system at once."""
        with self.own.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))

    def merge(self, benchmark: Benchmark, questions: Sequence[Question]) -> list[dict[str, Any]]:
        """Write answers.jsonl in question order, remove the parts, return the rows."""
        rows = self.read()
        placed = dict(reversed(list(zip(place_rows(benchmark, questions, rows), rows, strict=True))))
        missing = [str(question.id) for position, question in enumerate(questions) if position not in placed]
        if missing:
            raise ValueError(
                f"{self.folder}: {len(missing)} questions have no answer, for example {missing[0]}"
            )
        ordered = [placed[position] for position in range(len(questions))]
        partial = self.merged.with_name("answers.jsonl.partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in ordered), encoding="utf-8")
        partial.replace(self.merged)
        for path in self.parts():
            path.unlink()
        return ordered


def _whole_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a file and the bytes they take; what follows the last good line is torn."""
    rows: list[dict[str, Any]] = []
    length = 0
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                break
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise ValueError(
                    f"{path}:{number}: not a line of answers; remove the file to ask again"
                ) from error
            break
        length += len(line)
    return rows, length


def _refuse(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if not before:
        raise ValueError(
            f"{path.parent} holds answers, but no run.json that says how they were made; move them"
        )
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    differences = "; ".join(f"{name} was {before.get(name)!r}, is {now.get(name)!r}" for name in changed)
    raise ValueError(
        f"{path.parent} holds answers of another run ({differences}). Choose another --output_dir, or "
        "remove that folder to start over"
    )
