"""The whole way: a checkpoint is calibrated, then evaluated at budgets, which the routes then keep."""

import json

import numpy as np
import pytest
import torch

from llava.eval import calibrate
from llava.eval.__main__ import main as evaluate
from llava.eval.calibration_questions import training_questions
from llava.model.budgets import FILE
from llava.model.reduction import BudgetTable
from tests.llava.eval.conftest import draw, read_lines

FEW = ("--max_samples", "16", "--num_workers", "0", "--batch_size", "4")


@pytest.fixture
def checkpoint(tiny_llava, tmp_path):
    """A function that saves a checkpoint; arguments are the words of --reduction."""

    def save(*reduction):
        folder = tmp_path / "checkpoint"
        tokenizer, model, _ = tiny_llava(*reduction)
        for router in model.model.reducer.routers if model.model.reducer else ():
            torch.nn.init.normal_(router.predictor.weight, std=0.25)  # some start without a preference
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture
def on_pope(data_root):
    def run(folder, *flags):
        words = ["--model_path", str(folder), "--benchmarks", "pope", "--data_root", str(data_root)]
        calibrate.main([*words, *FEW, *flags])
        return json.loads((folder / FILE).read_text())

    return run


@pytest.fixture
def scores_at(data_root, tmp_path):
    def run(folder, *flags, name="run"):
        words = ["--benchmarks", "pope", "--model_path", str(folder), "--data_root", str(data_root)]
        output = tmp_path / name
        speed = ["--max_new_tokens", "2", "--num_workers", "0", "--batch_size", "8"]
        evaluate([*words, "--output_dir", str(output), *speed, *flags])
        rows = read_lines(output / "pope" / "answers.jsonl")
        return rows, json.loads((output / "pope" / "scores.json").read_text())

    return run


@pytest.mark.parametrize("preset", ["policy", "paper", "value"])
def test_every_reachable_budget_is_kept_without_retraining(checkpoint, on_pope, scores_at, preset, capsys):
    folder = checkpoint("dpn", f"preset={preset}", "layers=1,2,3", "skip_below=0")
    saved = on_pope(folder)
    printed = capsys.readouterr().out
    table = BudgetTable.from_dict(saved["table"])
    shares = np.array(table.shares["visual"])
    assert shares[0] == 1.0
    assert shares[-1] < 0.45
    assert f"visual: mean share of the dense FLOPs from {shares[-1]:.3f} to 1.000" in printed
    asked = float(np.round(shares[np.abs(shares - 0.7).argmin()], 3))
    rows, scores = scores_at(folder, "--budget", str(asked))
    realised = scores["budget"]["realised"]
    assert scores["budget"]["asked"] == asked
    assert scores["budget"]["shift"] == table.shift_for(asked, "visual")
    assert realised == scores["flops_ratio"]["paper"]
    assert realised == pytest.approx(asked, abs=0.12)  # 16 questions, of which 12 are in the table
    assert {tuple(row["route"]) for row in rows} != {("1x1", "1x1", "1x1")}


def test_the_file_says_what_it_was_measured_on(checkpoint, on_pope):
    saved = on_pope(checkpoint("dpn", "layers=1,2,3"), "--seed", "3")
    provenance = saved["provenance"]
    assert (provenance["num_questions"], provenance["num_held_out"], provenance["seed"]) == (12, 4, 3)
    assert provenance["benchmarks"] == ["pope"]
    assert provenance["dtype"] == "float32"
    assert saved["reduction"]["layers"] == [1, 2, 3]
    checks = provenance["held_out"]
    assert {check["counting"] for check in checks} == {"visual", "full"}
    assert all(abs(check["realised"] - check["budget"]) < 0.3 for check in checks)


def test_the_table_does_not_depend_on_the_batch_size(checkpoint, on_pope):
    folder = checkpoint("dpn", "layers=1,2,3")
    first, second = on_pope(folder), on_pope(folder, "--batch_size", "1")
    assert first["provenance"]["questions"] == second["provenance"]["questions"]
    for column in ("shift", "visual", "full"):
        np.testing.assert_allclose(first["table"][column], second["table"][column], atol=1e-3)


def test_training_data_serves_as_well_and_what_it_cannot_use_is_counted(checkpoint, tmp_path):
    images, samples = tmp_path / "images", []
    for number in range(8):
        draw(images / f"{number}.jpg")
        question = {"from": "human", "value": f"What is on picture {number}?\n<image>"}
        turns = [question, {"from": "gpt", "value": "Red."}, {"from": "human", "value": "Why?"}]
        samples.append({"id": number, "image": f"{number}.jpg", "conversations": turns})
    samples.append({"id": "text", "conversations": [{"from": "human", "value": "Hello?"}]})
    (tmp_path / "train.json").write_text(json.dumps(samples))
    questions, skipped = training_questions(tmp_path / "train.json", images)
    assert (len(questions), skipped) == (8, 1)
    assert questions[3].text == "What is on picture 3?"
    folder = checkpoint("dpn", "layers=1,2,3")
    data = ["--data", str(tmp_path / "train.json"), "--image_folder", str(images)]
    calibrate.main(["--model_path", str(folder), *data, *FEW])
    assert json.loads((folder / FILE).read_text())["provenance"]["num_skipped"] == 1


def test_a_budget_that_cannot_be_had_ends_in_one_line_before_the_model_is_loaded(
    checkpoint, on_pope, scores_at, monkeypatch
):
    folder = checkpoint("dpn", "layers=1,2,3")
    monkeypatch.setattr("llava.eval.__main__.load_session", None)
    with pytest.raises(SystemExit, match=r"^llava\.eval: budget=0\.5: the checkpoint isn't calibrated"):
        scores_at(folder, "--budget", "0.5")
    on_pope(folder)
    with pytest.raises(SystemExit, match=r"^llava\.eval: budget=0\.05 \(full\) is out of reach"):
        scores_at(folder, "--budget", "0.05", "--counting", "full")


def test_answers_of_another_budget_are_refused(checkpoint, on_pope, scores_at):
    folder = checkpoint("dpn", "layers=1,2,3")
    on_pope(folder)
    scores_at(folder, "--budget", "1.0")
    with pytest.raises(SystemExit, match=r"answers of another run \(router_shift was -1000\.0, is None"):
        scores_at(folder)


@pytest.mark.parametrize(
    ("reduction", "flags", "message"),
    [
        (("none",), (), "a plain LLaVA without a reduction; nothing to calibrate"),
        (("dpn", "layers=1,2,3", "eval_choice=random"), (), "its routes are random"),
        (("dpn", "layers=1,2,3"), ("--max_samples", "3"), "--max_samples must be 4 or more, got 3"),
        (("dpn", "layers=1,2,3"), ("--data", "x.json"), "give either --benchmarks or --data"),
        (("dpn", "layers=1,2,3"), ("--model_path", "owner/name"), "give a local directory"),
    ],
)
def test_what_cannot_be_calibrated_ends_in_one_line(checkpoint, on_pope, reduction, flags, message):
    with pytest.raises(SystemExit, match=rf"^llava\.eval\.calibrate: .*{message}"):
        on_pope(checkpoint(*reduction), *flags)
