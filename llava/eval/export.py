"""Write the file that a benchmark's server or grader takes, from an answers file and without a model.

python -m llava.eval.export vqav2 --data_root playground/data/eval --answers answers.jsonl --output vqav2.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from llava.eval.benchmark import Benchmark, MatchedAnswers, some
from llava.eval.reading import AnswersFile, read_answers_leniently
from llava.eval.score import add_file_flags, chosen_benchmark, in_own_folder, match_from, require_other_file


def export_answers(benchmark: Benchmark, root: Path, answers: AnswersFile, output: Path) -> list[str]:
    """Write the submission or grader file of these answers, as upstream's converter does.

    Returns:
        what was written and what was noticed about the answers, one line each.

    Raises:
        ValueError: the benchmark has nothing to submit, the answers aren't of it, or a file can't be read or
            written.
    """
    questions = benchmark.references(root, answers)
    matched = match_from(answers.path, benchmark, questions, answers.rows)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        written = benchmark.export(root, answers, output)
    except OSError as error:
        raise ValueError(f"can't write {output} ({error.strerror}); choose another --output") from error
    return [written, *_notices(answers, matched)]


def _notices(answers: AnswersFile, matched: MatchedAnswers) -> list[str]:
    """Say what upstream's converters keep to themselves."""
    counted = (
        ("line(s) that are no answers were left out", list(answers.bad_lines)),
        ("question(s) have no answer", matched.missing),
        ("question(s) are answered twice or more", matched.duplicate),
        ("answer(s) belong to no question asked", matched.unknown),
    )
    return [
        f"{answers.path}: {len(found)} {notice} ({some(found, named=2)})"
        for notice, found in counted
        if found
    ]


def main(words: Sequence[str] | None = None) -> None:
    """Parse the command line, write the file, say what was written."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.export", description=__doc__)
    add_file_flags(parser)
    parser.add_argument("--output", type=Path, required=True, help="submission or grader file to write")
    arguments = parser.parse_args(words)
    try:
        benchmark = chosen_benchmark(arguments)
        require_other_file(arguments.output, arguments.answers)
        read = read_answers_leniently if benchmark.skips_bad_lines else benchmark.read_answers
        answers = read(arguments.answers)
        benchmark = in_own_folder(benchmark, arguments.data_root, answers)
        lines = export_answers(benchmark, arguments.data_root, answers, arguments.output)
    except ValueError as error:
        sys.exit(f"llava.eval.export: {error}")
    sys.stdout.write(lines[0] + "\n")
    sys.stderr.write("".join(f"llava.eval.export: {line}\n" for line in lines[1:]))


if __name__ == "__main__":
    main()
