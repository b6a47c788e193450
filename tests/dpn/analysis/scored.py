"""Result folders whose scores.json follows from their answers, as the evaluation writes them, with no model."""

import json

from tests.dpn.analysis.conftest import BENCHMARKS

PROTOCOLS = BENCHMARKS | {"mmmu": "mmmu_val", "mme": "mme", "mmvet": "mmvet+judge_gpt-4-0613"}
MEASURED = {"device": "cpu (x86_64)", "dtype": "float32", "batch_size": 8}


def write_result(folder, benchmark, marks, *, flops=0.5, tokens=32.0, headline=None, first=0, **changes):
    """Write one benchmark: `marks` are the questions' scores, `first` is the id of the first question."""
    rows = [answer(benchmark, first + number, mark) for number, mark in enumerate(marks)]
    metrics = {"accuracy": 100 * sum(marks) / len(marks) if headline is None else headline}
    scores = {
        "benchmark": benchmark,
        "protocol": PROTOCOLS[benchmark],
        "headline": "accuracy",
        "metrics": metrics,
        "flops_ratio": {"paper": flops, "full": flops / 2 + 0.5},
        "gflops": {"paper": 2986 * flops},
        "visual_tokens": tokens,
        "seconds_per_sample": 0.25,
        "reduction": None,
        **MEASURED,
        **changes,
    }
    target = folder / benchmark
    target.mkdir(parents=True)
    (target / "scores.json").write_text(json.dumps(scores))
    (target / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def answer(benchmark, number, mark):
    """One line of answers.jsonl; POPE's are about a "yes" that was said or not."""
    extra = {"category": "random", "gold": "yes"} if benchmark == "pope" else {"gold": "5"}
    return {"question_id": str(number), "prompt": "Which digit?", "score": mark, "route": [], **extra}


def write_run(folder, marks, **changes):
    """Write a run: benchmark -> scores of its questions; POPE gets its F1. Returns the folder's name."""
    for benchmark, listed in marks.items():
        headline = None
        if benchmark == "pope":  # all questions are about a "yes"
            headline = 100 * 2 * sum(listed) / (sum(listed) + len(listed))
        write_result(folder, benchmark, listed, **{"headline": headline} | changes)
    return str(folder)
