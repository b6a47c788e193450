"""Upstream's `scripts/convert_*.py` with their flags: an answers file to a submission or grader file.

They name files one by one; `python -m llava.eval.export` finds them in the data folder and does the same.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from llava.eval.benchmark import Benchmark, match_answers
from llava.eval.benchmarks.gqa import Gqa
from llava.eval.benchmarks.mmbench import MmBench, write_workbook
from llava.eval.benchmarks.mmbench_data import gold_questions, read_table
from llava.eval.benchmarks.mmvet import MmVet
from llava.eval.benchmarks.seed import Seed
from llava.eval.benchmarks.vizwiz import VizWiz
from llava.eval.benchmarks.vqav2 import Vqav2
from llava.eval.export import export_answers
from llava.eval.reading import read_answers, read_answers_leniently
from llava.eval.score import score_rows

Words = Sequence[str] | None
Placed = TypeVar("Placed", bound=Benchmark)
_SEED_FILE = "SEED-Bench.json"


def gqa(words: Words) -> list[str]:
    """Turn --src, an answers file, into --dst, what GQA's official eval.py reads."""
    return _answers_alone(Gqa(), "convert_gqa_for_eval", words)


def mmvet(words: Words) -> list[str]:
    """Turn --src, an answers file, into --dst, what MM-Vet's official grader reads."""
    return _answers_alone(MmVet(), "convert_mmvet_for_eval", words)


def mmbench(words: Words) -> list[str]:
    """Turn RESULT_DIR/EXPERIMENT.jsonl into UPLOAD_DIR/EXPERIMENT.xlsx, what MMBench's server takes."""
    parser = _parser("convert_mmbench_for_submission", mmbench)
    for flag in ("--annotation-file", "--result-dir", "--upload-dir"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--experiment", required=True)
    args = parser.parse_args(words)
    table = read_table(args.annotation_file)
    answers = read_answers(args.result_dir / f"{args.experiment}.jsonl")
    matched = match_answers(MmBench(), gold_questions(table), answers.rows)
    output = _with_folder(args.upload_dir / f"{args.experiment}.xlsx")
    write_workbook(output, table, [answer.text for answer in matched.answers])
    return [f"{output}: {len(table.rows)} rows, {len(matched.missing)} of them without an answer"]


def seed(words: Words) -> list[str]:
    """Print the accuracy of --result-file and write --result-upload-file for SEED-Bench's leaderboard."""
    parser = _parser("convert_seed_for_submission", seed)
    parser.add_argument("--annotation-file", type=Path, required=True)
    parser.add_argument("--result-file", type=Path, required=True)
    parser.add_argument("--result-upload-file", type=Path, required=True)
    args = parser.parse_args(words)
    if args.annotation_file.name != _SEED_FILE:
        raise ValueError(f"--annotation-file {args.annotation_file}: expected a file called {_SEED_FILE}")
    benchmark, root = _placed(Seed(), args.annotation_file.parent)
    answers = read_answers(args.result_file)
    questions = benchmark.references(root, answers)
    scores = score_rows(benchmark, questions, answers.rows, source=args.result_file, allow_missing=True)
    types = {str(question.gold["question_type_id"]): question.category for question in questions}
    shown = {types[number]: types[number] for number in sorted(types, key=lambda one: (len(one), one))}
    shown |= {"accuracy": "Total accuracy", "image_accuracy": "image accuracy"}
    shown |= {"video_accuracy": "video accuracy"} if "video_accuracy" in scores["metrics"] else {}
    lines = [f"{name}: {scores['metrics'][metric]:.2f}%" for metric, name in shown.items()]
    _note(export_answers(benchmark, root, answers, args.result_upload_file))
    return lines


def vizwiz(words: Words) -> list[str]:
    """Turn --result-file into --result-upload-file, what VizWiz's server takes, in the questions' order."""
    parser = _parser("convert_vizwiz_for_submission", vizwiz)
    for flag in ("--annotation-file", "--result-file", "--result-upload-file"):
        parser.add_argument(flag, type=Path, required=True)
    args = parser.parse_args(words)
    benchmark, root = _placed(VizWiz("test"), args.annotation_file.parent)
    benchmark.test_questions = args.annotation_file.name
    answers = read_answers_leniently(args.result_file)
    written, *notices = export_answers(benchmark, root, answers, args.result_upload_file)
    _note(notices)
    return [written]


def vqav2(words: Words) -> list[str]:
    """Turn DIR/answers/SPLIT/CKPT/merge.jsonl into DIR/answers_upload/SPLIT/CKPT.json for VQAv2's server."""
    parser = _parser("convert_vqav2_for_submission", vqav2)
    parser.add_argument("--dir", type=Path, default=Path("./playground/data/eval/vqav2"))
    parser.add_argument("--ckpt", required=True)
    parser.add_argument("--split", required=True)
    args = parser.parse_args(words)
    benchmark, root = _placed(Vqav2("test-dev"), args.dir)
    benchmark.test_questions = f"{args.split}.jsonl"
    answers = read_answers_leniently(args.dir / "answers" / args.split / args.ckpt / "merge.jsonl")
    output = _with_folder(args.dir / "answers_upload" / args.split / f"{args.ckpt}.json")
    return [benchmark.export(root, answers, output)]


def run(convert: Callable[[Words], list[str]], words: Words = None) -> None:
    """Convert what the command line says; what is wrong with flags or files ends in one line."""
    try:
        lines = convert(words)
    except (ValueError, OSError) as error:
        sys.exit(f"convert_{convert.__name__}: {error}")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _answers_alone(benchmark: Benchmark, script: str, words: Words) -> list[str]:
    """Convert what needs no file of the benchmark."""
    parser = _parser(script, {"gqa": gqa, "mmvet": mmvet}[benchmark.name])
    parser.add_argument("--src", type=Path, required=True)
    parser.add_argument("--dst", type=Path, required=True)
    args = parser.parse_args(words)
    return [benchmark.export(Path(), read_answers(args.src), _with_folder(args.dst))]


def _note(lines: Sequence[str]) -> None:
    """Say what upstream's scripts don't where it is in nobody's way."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def _parser(script: str, convert: Callable[[Words], list[str]]) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"scripts/{script}.py", description=convert.__doc__)


def _placed(benchmark: Placed, folder: Path) -> tuple[Placed, Path]:
    """Let a benchmark find its files in a folder of any name; returns it and the data root to give it."""
    folder = folder.resolve()
    benchmark.folder = folder.name
    return benchmark, folder.parent


def _with_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
