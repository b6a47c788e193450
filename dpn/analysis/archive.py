"""Keep all answers of a study in one small file, from which its tables can be written again.

python -m dpn.analysis.archive results/toy docs/results/toy/runs.tar.xz
mkdir results/again && tar -C results/again -xJf docs/results/toy/runs.tar.xz

The file holds every scores.json and answers.jsonl under STUDY/runs and STUDY/oracle, and the stamps of
finished runs, so that llava.toy.study, told to write to the folder it is unpacked in, only trains what is
missing there. Left out are checkpoints, logs, run.json (paths of the machine) and of an answer its random id,
the model's name and `metadata`; router probabilities are rounded to two digits. The same answers always make
the same bytes.
"""

import argparse
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

from dpn.analysis.reading import ANSWER_RULES, read_rows

_PATTERNS = (
    "runs/*/seed*/*.done",
    "runs/*/seed*/points/*/*/scores.json",
    "runs/*/seed*/points/*/*/answers.jsonl",
    "oracle/*/*/scores.json",
    "oracle/*/*/answers.jsonl",
)
_LEFT_OUT = ("answer_id", "model_id", "metadata")


def archive(study: Path, path: Path) -> int:
    """Write the file; returns how many files are in it.

    Raises:
        ValueError: the study has no answers, or a line of them isn't as llava.eval writes it.
    """
    files = sorted(_files(study))
    if not any(file.name == "answers.jsonl" for file in files):
        raise ValueError(f"{study}: no answers under runs/METHOD/seedN/points; run llava.toy.study first")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz", preset=9) as packed:
        for file in files:
            content = _shortened(file) if file.suffix == ".jsonl" else file.read_bytes()
            entry = tarfile.TarInfo(file.relative_to(study).as_posix())
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    return len(files)


def _files(study: Path) -> Iterator[Path]:
    for pattern in _PATTERNS:
        yield from study.glob(pattern)


def _shortened(path: Path) -> bytes:
    lines = []
    for _, row in read_rows(path, ANSWER_RULES, required=("question_id",), advice="finish the evaluation"):
        kept = {name: value for name, value in row.items() if name not in _LEFT_OUT}
        if "probabilities" in kept:
            kept["probabilities"] = [[round(p, 2) for p in router] for router in kept["probabilities"]]
        lines.append(json.dumps(kept) + "\n")
    return "".join(lines).encode()


def main(words: list[str] | None = None) -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(
        prog="python -m dpn.analysis.archive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", type=Path, help="--output of llava.toy.study")
    parser.add_argument("file", type=Path, help="NAME.tar.xz")
    arguments = parser.parse_args(words)
    try:
        count = archive(arguments.study, arguments.file)
    except ValueError as error:
        sys.exit(f"dpn.analysis.archive: {error}")
    size = arguments.file.stat().st_size / 1e6
    sys.stdout.write(f"wrote {arguments.file}: {count} files, {size:.2f} MB\n")


if __name__ == "__main__":
    main()
