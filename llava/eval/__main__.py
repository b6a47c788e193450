"""Answer benchmarks with a checkpoint and score them.

python -m llava.eval --benchmarks gqa pope --model_path CHECKPOINT --output_dir results/try1
torchrun --nproc_per_node 8 -m llava.eval ...    # the questions are shared among the ranks
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from llava.eval.arguments import EvalArguments, parse
from llava.eval.export import export_answers
from llava.eval.preflight import plan_run
from llava.eval.ranks import Ranks
from llava.eval.reading import AnswersFile
from llava.eval.report import build_scores
from llava.eval.runner import Plan, Session, answer_all
from llava.eval.session import load_session
from llava.eval.writing import write_json


def main(words: Sequence[str] | None = None) -> None:
    """Evaluate; what is wrong with flags, files or checkpoints ends in one line, not in a traceback."""
    try:
        run(parse(words))
    except ValueError as error:
        sys.exit("; ".join([f"llava.eval: {error}", *getattr(error, "__notes__", [])]))


def run(arguments: EvalArguments) -> None:
    """Check everything, load the model once, then answer and score one benchmark after the other."""
    ranks = Ranks.from_environment()
    plans = plan_run(arguments, ranks)
    ranks.join()
    session = load_session(arguments, ranks, arguments.reduction)
    problems = [evaluate(plan, session, ranks, arguments) for plan in plans]
    ranks.leave()
    refuse_problems(problems)


def evaluate(plan: Plan, session: Session, ranks: Ranks, arguments: EvalArguments) -> str | None:
    """Answer on every rank; the first rank then merges, scores, exports and prints.

    Returns:
        why no submission could be written, None where there is nothing of that kind to say: the benchmarks
        behind this one are evaluated all the same.
    """
    answer_all(plan, session, ranks)
    ranks.wait()
    problem = None
    if ranks.rank == 0:
        rows = plan.files.merge(plan.benchmark, plan.questions)
        scores = build_scores(plan, session, rows, arguments.label_suffix())
        write_json(plan.files.folder / "scores.json", scores)
        if "not_scored" in scores:
            print(f"{scores['protocol']}: not scored: {scores['not_scored']}")
        else:
            print(json.dumps({scores["protocol"]: scores["metrics"][scores["headline"]]}))
        if plan.benchmark.submission and arguments.max_samples is None:
            problem = _export(plan, rows)
    ranks.wait()
    return problem


def refuse_problems(problems: Sequence[str | None]) -> None:
    """Raise a ValueError that lists what `evaluate` said of several benchmarks; nothing if all went well."""
    if found := [problem for problem in problems if problem is not None]:
        raise ValueError("; ".join(found))


def _export(plan: Plan, rows: list[dict[str, Any]]) -> str | None:
    """Write the submission beside the scores; return what was wrong."""
    answers = AnswersFile(plan.files.merged, rows)
    output = plan.files.folder / plan.benchmark.submission
    try:
        print("\n".join(export_answers(plan.benchmark, plan.data_root, answers, output)))
    except ValueError as error:
        return (
            f"{error}: answers and scores are there, but no {output}; write it with python -m "
            f"llava.eval.export {plan.benchmark.name} once that is mended"
        )
    return None


if __name__ == "__main__":
    main()
