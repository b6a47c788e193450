"""Upstream's `scripts/convert_sqa_to_llava.py`: ScienceQA as training records or instruction lines.

Never for `llava_test_CQM-A.json` of eval.zip, which evaluation reads: despite its name it has another format.

    python scripts/convert_sqa_to_llava.py convert_to_llava --base-dir scienceqa --split train
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.eval.reading import read_json, require_fields

LETTERS = "ABCDE"
DEFAULT_FORMATS = {"convert_to_llava": "QCM-LEA", "convert_to_jsonl": "QCM-LEPA"}
_FORMAT = re.compile(r"(QCM|CQM)(L?E?)-(A|AL?E?|LE?A|EA|L?E?PA)")
_FIELDS = {"question": str, "choices": list, "answer": int, "hint": str, "lecture": str, "solution": str}


class Record(NamedTuple):
    """One problem in words."""

    id: str
    image: str | None
    """Path of the image below its folder, None without one."""
    asked: str
    answered: str


def record(problem_id: str, problem: Mapping[str, Any], prompt_format: str) -> Record:
    """Put a problem into words.

    Args:
        problem_id: its key in problems.json.
        problem: its entry there.
        prompt_format: what is asked and what is answered, joined by a hyphen: Q question, C context, M
            options, L lecture, E explanation, A answer; P puts headings (`LECTURE:`, `###`, `ANSWER:`).

    Raises:
        ValueError: there is no such format.
    """
    found = _FORMAT.fullmatch(prompt_format)
    if found is None:
        raise ValueError(f"--prompt-format {prompt_format}: expected one like QCM-LEA, QCM-ALE or CQM-A")
    order, shown, wanted = found.groups()
    parts = {"L": problem["lecture"], "E": problem["solution"]}
    image = f"{problem_id}/{problem['image']}" if problem.get("image") else None
    letter = LETTERS[problem["answer"]]
    asked = _question(problem, order) + _because("\n", [parts[part] for part in shown])
    mark = f"\n{DEFAULT_IMAGE_TOKEN}" if image else ""
    return Record(problem_id, image, _one_space(asked) + mark, _answer(letter, parts, wanted))


def _question(problem: Mapping[str, Any], order: str) -> str:
    options = " ".join(
        f"({letter}) {text}" for letter, text in zip(LETTERS, problem["choices"], strict=False)
    )
    context = f"Context: {problem['hint'] or 'N/A'}"
    question = problem["question"]
    first = [question, context] if order == "QCM" else [context, f"Question: {question}"]
    return "\n".join([*first, f"Options: {options}"])


def _answer(letter: str, parts: Mapping[str, str], wanted: str) -> str:
    if "P" in wanted:
        named = {"L": "LECTURE", "E": "SOLUTION"}
        said = [f"{named[part]}: {parts[part]}\n" for part in wanted[:-2] if parts[part]]
        return _one_space("".join([*said, f"###\nANSWER: {letter}."]))
    answer = f"The answer is {letter}."
    if wanted.startswith("A"):
        return _one_space(answer + _because(" ", [parts[part] for part in wanted[1:]]))
    return _one_space(" ".join([*(parts[part] for part in wanted[:-1]), answer]))


def _because(joint: str, reasons: Sequence[str]) -> str:
    """Return the reasons behind their heading; nothing where there is none."""
    text = " ".join(reasons).strip()
    return f"{joint}BECAUSE: {text}" if text else ""


def _one_space(text: str) -> str:
    """Replace pairs of spaces by one, once."""
    return text.replace("  ", " ")


def convert(form: str, base_dir: Path, split: str, prompt_format: str) -> Path:
    """Write all problems of a split; returns the file.

    Raises:
        ValueError: a file that can't be used, or no such split or format.
    """
    problems = _problems_of(base_dir, split)
    records = [record(problem_id, problem, prompt_format) for problem_id, problem in problems.items()]
    if form == "convert_to_llava":
        path = base_dir / f"llava_{split}_{prompt_format}.json"
        path.write_text(json.dumps([_as_dialogue(one) for one in records], indent=2) + "\n", encoding="utf-8")
    else:
        path = base_dir / f"scienceqa_{split}_{prompt_format}.jsonl"
        lines = (
            json.dumps(_head(one) | {"instruction": one.asked, "output": one.answered}) for one in records
        )
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _problems_of(base_dir: Path, split: str) -> dict[str, Mapping[str, Any]]:
    """Read the problems of a split, in its order."""
    path, split_path = base_dir / "problems.json", base_dir / "pid_splits.json"
    problems, splits = read_json(path, "ScienceQA's problems"), read_json(split_path, "ScienceQA's splits")
    if not isinstance(problems, dict) or not isinstance(splits, dict):
        raise ValueError(f"{path}, {split_path}: expected an object in each")
    if not isinstance(splits.get(split), list):
        raise ValueError(f"--split {split}: there are {', '.join(splits)} in {split_path}")
    chosen: dict[str, Any] = {str(one): problems.get(str(one)) for one in splits[split]}
    for problem_id, problem in chosen.items():
        where = f"{path}: problem {problem_id}"
        require_fields(problem, where, _FIELDS)
        are_texts = all(isinstance(choice, str) for choice in problem["choices"])
        if not are_texts or not 0 <= problem["answer"] < min(len(LETTERS), len(problem["choices"])):
            raise ValueError(f"{where}: expected choices as strings, and as answer the place of one of them")
    return chosen


def _head(one: Record) -> dict[str, Any]:
    return {"id": one.id} | ({} if one.image is None else {"image": one.image})


def _as_dialogue(one: Record) -> dict[str, Any]:
    turns = [{"from": "human", "value": one.asked}, {"from": "gpt", "value": one.answered}]
    return _head(one) | {"conversations": turns}


def main(words: Sequence[str] | None = None) -> None:
    """Convert what the command line says; what is wrong with it ends in one line."""
    parser = argparse.ArgumentParser(prog="scripts/convert_sqa_to_llava.py", description=__doc__)
    parser.add_argument("form", choices=tuple(DEFAULT_FORMATS))
    parser.add_argument("--base-dir", "--base_dir", type=Path, required=True)
    parser.add_argument("--split", required=True, help="train, val, test, ...")
    parser.add_argument("--prompt-format", "--prompt_format", help="default: QCM-LEA, for jsonl QCM-LEPA")
    args = parser.parse_args(words)
    try:
        prompt_format = args.prompt_format or DEFAULT_FORMATS[args.form]
        path = convert(args.form, args.base_dir, args.split, prompt_format)
    except (ValueError, OSError) as error:
        sys.exit(f"convert_sqa_to_llava: {error}")
    sys.stdout.write(f"wrote {path}\n")
