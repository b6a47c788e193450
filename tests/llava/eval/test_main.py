"""The whole way with a tiny random model: checkpoint directory in, answers and scores out."""

import json

import pytest

from llava.eval.__main__ import main
from tests.llava.eval.conftest import SUFFIX, draw, read_lines, write_lines

FORCED = ("--reduction", "dpn", "layers=1,2,3", "eval_choice=static", "route=1x2,2x2,1x1")


@pytest.fixture
def evaluate(tiny_llava, data_root, tmp_path):
    def run(run_name, *flags, reduction=("none",)):
        checkpoint = tmp_path / "-".join(reduction)
        if not checkpoint.exists():
            tokenizer, model, _ = tiny_llava(*reduction)
            model.save_pretrained(checkpoint)
            tokenizer.save_pretrained(checkpoint)
        words = ["--benchmarks", "pope", "--model_path", str(checkpoint), "--data_root", str(data_root)]
        output = tmp_path / "results" / run_name
        main([*words, "--output_dir", str(output), "--max_new_tokens", "5", "--num_workers", "0", *flags])
        return read_lines(output / "pope" / "answers.jsonl"), json.loads(
            (output / "pope" / "scores.json").read_text()
        )

    return run


@pytest.mark.parametrize("preset", ["paper", "policy"])
def test_answers_and_routes_do_not_depend_on_the_batch_size(evaluate, preset):
    reduction = ("dpn", f"preset={preset}", "layers=1,2,3")
    alone, _ = evaluate("one", "--batch_size", "1", reduction=reduction)
    together, scores = evaluate("five", "--batch_size", "5", reduction=reduction)
    for key in ("question_id", "text", "route", "tokens_per_layer", "flops_ratio"):
        assert [row[key] for row in alone] == [row[key] for row in together]
    assert scores["reduction"]["preset"] == preset
    assert scores["image_aspect_ratio"] == "pad"
    assert alone[0]["visual_grids"] == [[4, 4]]
    assert scores["num_questions"] == 17


def test_a_plain_checkpoint_costs_what_dense_costs(evaluate):
    rows, scores = evaluate("dense")
    assert scores["flops_ratio"] == {"paper": 1.0, "full": 1.0}
    assert rows[0]["visual_tokens_per_layer"] == [16, 16, 16, 16]
    assert rows[0]["route"] == []


def test_a_plain_checkpoint_runs_with_forced_routes(evaluate):
    rows, scores = evaluate("forced", *FORCED)
    assert rows[0]["route"] == ["1x2", "2x2", "1x1"]
    assert rows[0]["visual_tokens_per_layer"] == [16, 8, 2, 2]
    assert scores["flops_ratio"]["paper"] < scores["flops_ratio"]["full"] < 1


def test_the_same_folder_refuses_other_routes(evaluate):
    evaluate("run")
    with pytest.raises(SystemExit, match=r"holds answers of another run \(reduction was None"):
        evaluate("run", *FORCED)


@pytest.mark.parametrize("num_workers", ["0", "1"])
def test_a_corrupt_image_ends_in_one_line_with_its_question(evaluate, data_root, num_workers):
    image = sorted((data_root / "pope" / "val2014").iterdir())[2]
    image.write_bytes(b"not an image")
    with pytest.raises(SystemExit) as ended:
        evaluate("run", "--num_workers", num_workers)
    assert str(ended.value.code).startswith("llava.eval: question ")
    assert f"can't use image {image}" in str(ended.value.code)
    assert "Traceback" not in str(ended.value.code)


def test_a_checkpoint_that_cannot_be_loaded_ends_in_one_line(evaluate, tmp_path):
    evaluate("run")
    config = tmp_path / "none" / "config.json"
    config.write_text(config.read_text().replace('"mlp2x_gelu"', '"mlp3x_gelu"'))
    with pytest.raises(SystemExit, match=r"^llava\.eval: the weights in .* don't fit its config\.json"):
        evaluate("other")


def test_a_gpu_that_is_not_there_ends_in_one_line(evaluate, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^llava\.eval: --device cuda: this machine has no usable GPU"):
        evaluate("run", "--device", "cuda")


def test_a_second_run_repeats_no_question(evaluate, capsys):
    first, _ = evaluate("run")
    second, _ = evaluate("run")
    assert first == second


def test_a_submission_that_cant_be_written_doesnt_keep_the_next_benchmark_from_its_scores(
    evaluate, data_root, tmp_path
):
    questions = data_root / "vqav2" / "llava_vqav2_mscoco_test-dev2015.jsonl"
    draw(data_root / "vqav2" / "test2015" / "a.jpg")
    write_lines(questions, [{"question_id": 1, "image": "a.jpg", "text": f"What?{SUFFIX}"}])
    with pytest.raises(SystemExit, match=r"test2015\.jsonl: no such file.* llava\.eval\.export vqav2 once"):
        evaluate("run", "--benchmarks", "vqav2", "pope")
    folder = tmp_path / "results" / "run"
    assert json.loads((folder / "pope" / "scores.json").read_text())["num_questions"] == 17
    assert len(read_lines(folder / "vqav2" / "answers.jsonl")) == 1


RIVALS = {
    "static": (("layers=1,2", "kernels=1x2,2x2"), [16, 8, 2, 2], ["1x2", "2x2"]),
    "fastv": (("layer=2",), [16, 16, 8, 8], []),
    "pyramid_drop": (("layers=1,2,3",), [16, 8, 4, 2], []),
    "random": (("layers=2,3", "keeps=0.5,0.5"), [16, 16, 8, 4], []),
    "truncate": (("layer=3",), [16, 16, 16, 0], []),
}
"""Fields, visual tokens of every layer, and the route in an answer line."""


@pytest.mark.parametrize("method", RIVALS)
def test_a_plain_checkpoint_runs_with_a_rival_whatever_the_batch(evaluate, method):
    fields, visual, route = RIVALS[method]
    words = ("--reduction", method, *fields)
    alone, _ = evaluate("one", "--batch_size", "1", *words)
    together, scores = evaluate("five", "--batch_size", "5", *words)
    for key in ("question_id", "text", "route", "tokens_per_layer", "visual_tokens_per_layer", "flops"):
        assert [row[key] for row in alone] == [row[key] for row in together]
    assert (alone[0]["visual_tokens_per_layer"], alone[0]["route"]) == (visual, route)
    assert scores["reduction"]["method"] == method
    assert scores["flops_ratio"]["paper"] < scores["flops_ratio"]["full"] < 1


def test_a_budget_with_a_rival_ends_in_one_line(evaluate):
    with pytest.raises(SystemExit, match=r"budget=0.4 moves .* routers, and --reduction fastv has"):
        evaluate("run", "--reduction", "fastv", "layer=1", "--budget", "0.4")


IN_FRONT = {
    "prumerge_plus": (("uniform=2",), None),
    "visionzip": (("dominant=5", "contextual=3"), 8),
    "downsample": (("side=28",), 4),
}
"""Fields of what acts in front of the projector, and an image's tokens where they are known."""


@pytest.mark.parametrize("method", IN_FRONT)
def test_a_plain_checkpoint_runs_with_what_acts_in_front_of_the_projector(evaluate, method):
    fields, promised = IN_FRONT[method]
    rows, scores = evaluate("run", "--reduction", method, *fields)
    for row in rows:
        [visual] = set(row["visual_tokens_per_layer"])
        assert 0 < visual < 16
        assert promised in (None, visual)
        assert row["dense_visual_tokens"] == 16
        assert len(set(row["tokens_per_layer"])) == 1
    assert scores["reduction"]["method"] == method
    assert scores["flops_ratio"]["paper"] < scores["flops_ratio"]["full"] < 1
