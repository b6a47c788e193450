"""Every route forced on the same questions with one loaded model: result folders, and what they say."""

import itertools
import json

import pytest

from llava.eval.oracle import main
from tests.llava.eval.conftest import read_lines

SPEED = ("--max_new_tokens", "3", "--num_workers", "0", "--batch_size", "4")


@pytest.fixture
def ask(tiny_llava, data_root, tmp_path):
    def run(*flags, reduction=("dpn", "layers=1,3", "kernels=1x1,2x2"), name="oracle"):
        checkpoint = tmp_path / "-".join(reduction).replace(",", "+")
        if not checkpoint.exists():
            tokenizer, model, _ = tiny_llava(*reduction)
            model.save_pretrained(checkpoint)
            tokenizer.save_pretrained(checkpoint)
        words = ["--benchmarks", "pope", "--model_path", str(checkpoint), "--data_root", str(data_root)]
        main([*words, "--output_dir", str(tmp_path / name), *SPEED, *flags])
        return tmp_path / name

    return run


def scores_of(folder):
    return json.loads((folder / "pope" / "scores.json").read_text())


def test_every_route_has_a_result_folder_in_which_all_questions_took_it(ask):
    folder = ask()
    routes = [",".join(route) for route in itertools.product(("1x1", "2x2"), repeat=2)]
    assert {path.name for path in folder.iterdir()} == {"router", *routes}
    for route in routes:
        rows = read_lines(folder / route / "pope" / "answers.jsonl")
        assert {",".join(row["route"]) for row in rows} == {route}
        assert scores_of(folder / route)["reduction"]["eval_choice"] == "static"
    assert scores_of(folder / "1x1,1x1")["flops_ratio"]["paper"] == 1.0
    assert scores_of(folder / "2x2,2x2")["flops_ratio"]["paper"] < 0.6
    assert scores_of(folder / "router")["reduction"]["eval_choice"] == "argmax"


def test_a_forced_question_answers_as_one_that_took_the_route_by_itself(ask):
    folder = ask("--reduction", "dpn", "eval_choice=random")
    own = read_lines(folder / "router" / "pope" / "answers.jsonl")
    assert len({tuple(row["route"]) for row in own}) > 1
    texts = {
        path.name: [row["text"] for row in read_lines(path / "pope" / "answers.jsonl")]
        for path in folder.iterdir()
    }
    for number, row in enumerate(own):
        assert texts[",".join(row["route"])][number] == row["text"]
    assert len({tuple(answers) for answers in texts.values()}) > 1  # routes do make a difference


def test_chosen_routes_of_a_few_questions(ask):
    folder = ask("--limit", "5", "--routes", "2x2,1x1")
    assert {path.name for path in folder.iterdir()} == {"router", "2x2,1x1"}
    assert scores_of(folder / "2x2,1x1")["num_questions"] == 5


def test_a_second_call_goes_on_and_asks_nothing_twice(ask):
    folder = ask("--limit", "6", "--routes", "2x2,1x1")
    before = {path: path.read_bytes() for path in folder.glob("*/pope/answers.jsonl")}
    ask("--limit", "6")
    assert {path: path.read_bytes() for path in before} == before


def test_a_plain_checkpoint_can_be_tried_untrained(ask):
    words = ("--reduction", "dpn", "layers=1", "kernels=1x1,2x2", "eval_choice=random")
    folder = ask(*words, "--limit", "4", reduction=("none",))
    assert {path.name for path in folder.iterdir()} == {"router", "1x1", "2x2"}


@pytest.mark.parametrize(
    ("flags", "reduction", "message"),
    [
        ((), ("none",), "is a plain LLaVA, which has no routes"),
        (("--routes", "4x4,1x1"), ("dpn", "layers=1,3", "kernels=1x1,2x2"), "--routes 4x4,1x1: not a route"),
        (("--routes", "2x2"), ("dpn", "layers=1,3", "kernels=1x1,2x2"), "for each of its 2 DPE layers"),
    ],
)
def test_what_cannot_be_routed_is_refused(ask, flags, reduction, message):
    with pytest.raises(SystemExit, match=message):
        ask(*flags, reduction=reduction)
