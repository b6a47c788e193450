"""One tiny comparison that several tests look at."""

import json

import pytest

from llava.bench.__main__ import main
from llava.bench.compare import case
from llava.bench.timing import Task, measure

METHODS = ("dpn", "static", "fastv", "pyramid_drop", "random", "truncate", "average_pool", "resampler")


class Comparison:
    """Files and result of a run, and the order that its contenders ran in."""

    def __init__(self, folder, order):
        self.folder = folder
        self.order = order
        self.document = json.loads((folder / "compare.json").read_text())

    @property
    def rows(self):
        return {row["name"]: row for row in self.document["cases"][-1]["rows"]}


@pytest.fixture(scope="session")
def comparison(tmp_path_factory):
    """Every kind of method at one budget, batch of 2, answers of 3 tokens."""
    folder, order = tmp_path_factory.mktemp("compare"), []

    def spied(tasks, **options):
        def logged(name, task):
            return Task(lambda: order.append(name) or task.run(), task.after)

        return measure({name: logged(name, task) for name, task in tasks.items()}, **options)

    sizes = ["--preset", "tiny", "--text", "20", "--device", "cpu", "--seed", "1"]
    amounts = ["--rounds", "3", "--warmup", "1", "--batch", "2", "--answers", "3"]
    amounts += ["--clock", "cpu"]  # whatever else the machine does
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(case, "measure", spied)
        what = ["--budgets", "0.5", "--methods", *METHODS, "average_pool scale=2", "--output", str(folder)]
        main(["compare", *sizes, *amounts, *what])
    return Comparison(folder, order)
