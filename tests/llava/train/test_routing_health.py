import json
import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llava.data.mixes import name_sources
from llava.model.reduction import Routing, parse_reduction
from llava.train.collapse import CollapseAlarm
from llava.train.routing_health import TrainingHealth
from llava.train.train import prepare, run

LAYERS, DEPTH = (1, 3), 4


def config_of(*words):
    return parse_reduction(["dpn", "layers=1,3", *words])


def model_of(*words):
    """What TrainingHealth reads of a model: reducer's configuration and the decoder's sizes."""
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": DEPTH, "reduction": None}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    reducer = SimpleNamespace(config=config_of(*words))
    inner = SimpleNamespace(reducer=reducer, crop_shape=SimpleNamespace(tokens=16))
    return SimpleNamespace(model=inner, config=SimpleNamespace(**sizes, **heads))


def output_of(choices, logits=(0.0, 0.0, 0.0)):
    """An output whose DPEs chose so (S, B); samples have 16 visual tokens and 4 of text."""
    choices = np.array(choices)
    keeps = np.array([1, 0.5, 0.25, 1])[choices]  # the last entry is what UNROUTED reads
    visual = (16 * np.cumprod(np.vstack([np.ones(choices.shape[1]), keeps]), axis=0)).astype(int)
    routing = Routing(
        ((1, 1), (1, 2), (2, 2)),
        LAYERS,
        logits=[torch.tensor(logits).repeat(choices.shape[1], 1) for _ in LAYERS],
        choices=list(choices),
        token_counts=list(visual + 4),
        visual_counts=list(visual),
    )
    return SimpleNamespace(routing=routing)


def batch_of(samples):
    ids = torch.tensor([[1, -200, 5, 6, 7]]).repeat(samples, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def line_of(health, *outputs, metrics=None, sources=None):
    for output in outputs:
        samples = len(output.routing.choices[0])
        health.add(batch_of(samples), output, sources)
    return health.pop(metrics or {})


def test_shares_rates_and_tokens_are_those_of_the_choices():
    health = TrainingHealth(model_of("preset=paper", "target=1.5"))
    line = line_of(health, output_of([[0, 2], [1, 2]]))
    assert [line[f"share_{kernel}@1"] for kernel in ("1x1", "1x2", "2x2")] == [0.5, 0, 0.5]
    assert [line[f"share_{kernel}@3"] for kernel in ("1x1", "1x2", "2x2")] == [0, 0.5, 0.5]
    assert line["realised_rate"] == (0 + 2 + 1 + 2) / 4
    assert line["target_rate"] == 1.5
    assert line["entropy@1"] == line["router_entropy"] == pytest.approx(math.log(3))
    assert [line[f"visual_tokens@{layer}"] for layer in (0, 1, 3)] == [16, (16 + 4) / 2, (8 + 1) / 2]
    assert [line[f"tokens@{layer}"] for layer in (0, 1, 3)] == [20, 14, 8.5]
    assert 0 < line["visual_flops"] < line["flops"] < 1


def test_micro_batches_weigh_by_their_samples():
    line = line_of(TrainingHealth(model_of()), output_of([[0] * 3, [0] * 3]), output_of([[2], [2]]))
    assert line["share_2x2@1"] == 0.25
    assert line["realised_rate"] == 0.5


def test_samples_left_alone_count_nowhere():
    line = line_of(TrainingHealth(model_of()), output_of([[1, -1], [1, -1]]))
    assert (line["share_1x2@1"], line["realised_rate"], line["visual_tokens@0"]) == (1, 1, 16)
    text_only = line_of(TrainingHealth(model_of()), output_of([[-1], [-1]]), metrics={"language_loss": 2.0})
    assert text_only.keys() == {"language_loss", "tokens_per_second"}


def test_every_source_has_a_rate_of_its_own():
    health = TrainingHealth(model_of(), sources=["coco", "gqa", "vg"])
    line = line_of(health, output_of([[0, 2], [0, 1]]), sources=[0, 1])
    assert (line["realised_rate/coco"], line["realised_rate/gqa"]) == (0, 1.5)
    assert "realised_rate/vg" not in line


def test_a_line_is_the_mean_over_all_ranks_and_the_next_one_starts_again(monkeypatch):
    other = TrainingHealth(model_of())
    sent = []
    monkeypatch.setattr(other, "_over_ranks", lambda values: sent.append(values) or values)
    line_of(other, output_of([[2] * 3, [2] * 3]), metrics={"language_loss": 3.0})
    health = TrainingHealth(model_of())
    monkeypatch.setattr(health, "_over_ranks", lambda values: values + sent[0])
    line = line_of(health, output_of([[0], [0]]), metrics={"language_loss": 1.0, "own": 5.0})
    assert (line["share_2x2@1"], line["language_loss"], line["own"]) == (0.75, 2.0, 5.0)
    monkeypatch.setattr(health, "_over_ranks", lambda values: values)
    assert line_of(health, output_of([[1], [1]]))["share_1x2@1"] == 1


def test_ranks_send_vectors_of_one_length_whatever_they_saw(monkeypatch):
    lengths = []
    for outputs in ([], [output_of([[-1], [-1]])], [output_of([[1, 2], [0, 0]])]):
        health = TrainingHealth(model_of(), sources=["coco"])
        monkeypatch.setattr(health, "_over_ranks", lambda values: lengths.append(len(values)) or values)
        line_of(health, *outputs, metrics={"language_loss": 1.0})
    assert len(set(lengths)) == 1


def test_tokens_count_images_by_their_visual_tokens(monkeypatch):
    health = TrainingHealth(model_of())
    clock = iter([0.0, 2.0, 2.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    health.began = next(clock)
    assert line_of(health, output_of([[0, 0], [0, 0]]))["tokens_per_second"] == 2 * (4 + 16) / 2


def alarm_of(*words):
    return CollapseAlarm(config_of(*words))


def see(alarm, *shares, samples=256, start=0):
    """Show the alarm lines in which the first expert of layer 1 took these shares, ten steps apart."""
    for line, share in enumerate(shares, 1):
        counts = [share * samples, (1 - share) * samples, 0]
        alarm.see(start + 10 * line, {1: counts, 3: [samples / 3] * 3}, {1: 0.5, 3: 1.0})


def test_a_collapsed_router_is_reported_once_and_its_recovery_too(caplog):
    alarm = alarm_of("budget=0.4")
    see(alarm, 0.9, 0.97)
    assert not caplog.text
    see(alarm, 0.99, 0.97, 0.99, 1.0, start=20)  # between the two limits nothing changes
    (said,) = caplog.messages
    assert "ALARM: the router in front of layer 1 (DPE 1 of 2) has collapsed: from step 21 to 30" in said
    assert "it gave 1x1 to 99.0 % of 256 samples (entropy 0.500 of 1.099 nats)" in said
    assert "If budget=0.4 asks for it, this is no failure: watch share_1x1@1" in said
    see(alarm, 0.85, 0.97, start=60)
    again = "(DPE 1 of 2) chooses again: from step 61 to 70 no expert took more than 85.0 % of 256 samples"
    assert f"{again} (1x1 had taken nearly all since step 21)" in caplog.messages[1]
    see(alarm, 0.98, start=80)
    assert caplog.text.count("ALARM") == 2
    assert "layer 3" not in caplog.text


def test_a_router_that_changes_to_another_expert_for_all_is_reported_again(caplog):
    alarm = alarm_of()
    see(alarm, 1.0, 1.0, 0.0, 0.0)
    assert [("gave 1x1 to" in said, "gave 1x2 to" in said) for said in caplog.messages] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("words", "wanted"), [(["preset=paper"], "target=1.5"), (["preset=policy", "mu=0.25"], "mu=0.25")]
)
def test_the_alarm_names_what_may_ask_for_a_collapse(words, wanted, caplog):
    see(alarm_of(*words), 1.0)
    assert f"If {wanted} asks for it" in caplog.text


def test_few_samples_are_no_reason_for_an_alarm_until_there_are_enough(caplog):
    alarm = alarm_of()
    see(alarm, 1.0, 1.0, 1.0, samples=64)
    assert not caplog.text
    see(alarm, 1.0, samples=64, start=30)
    assert "from step 1 to 40 it gave 1x1 to 100.0 % of 256 samples" in caplog.text


def test_probabilities_that_are_not_finite_are_reported_at_once(caplog):
    alarm = alarm_of()
    for _ in range(2):
        alarm.see(10, {1: [1, 0, 0], 3: [1, 0, 0]}, {1: math.nan, 3: 0.1})
    assert caplog.text.count("router in front of layer 1 (DPE 1 of 2) aren't finite") == 1


def test_forced_routes_raise_no_alarm(caplog):
    see(alarm_of("train_choice=static", "eval_choice=static", "route=1x1,1x1"), 1.0, 1.0)
    see(alarm_of("train_choice=random"), 1.0, 1.0)
    assert not caplog.text


def test_rare_sources_share_a_name():
    names = [f"folder{index}" for index in range(12) for _ in range(12 - index)]
    shown, numbers = name_sources(names)
    assert shown == [*(f"folder{index}" for index in range(7)), "other"]
    assert (numbers[0], numbers[-1]) == (0, 7)


def test_every_line_of_a_run_has_the_routers_health(command, tmp_path, caplog):
    words = ["--reduction", "dpn", "preset=policy", "layers=1,2", "budget=0.5"]
    with caplog.at_level(logging.WARNING):
        run(prepare(command(tmp_path, *words, "--gradient_accumulation_steps", "2")))
    lines = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    first = next(line for line in lines if "loss" in line)
    wanted = {
        "language_loss",
        "routing_loss",
        "policy_loss",
        "mu",
        "rate",
        "realised_rate",
        "budget",
        "flops",
    }
    wanted |= {"share_1x2@2", "entropy@1", "tokens@0", "visual_tokens@2", "tokens_per_second"}
    assert wanted <= first.keys()
    assert first["realised_rate/no folder"] == pytest.approx(first["realised_rate"])
    assert sum(first[f"share_{kernel}@1"] for kernel in ("1x1", "1x2", "2x2")) == pytest.approx(1)


def test_tensorboard_gets_the_routers_health(command, tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    run(prepare(command(tmp_path / "out", "--reduction", "dpn", "layers=1,2", "--report_to", "tensorboard")))
    folder = next((tmp_path / "board").rglob("events.*")).parent
    tags = events.EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    assert {"train/share_1x2@2", "train/realised_rate", "train/tokens_per_second"} <= set(tags)


def test_wandb_offline_gets_the_routers_health(command, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is an extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run(prepare(command(tmp_path / "out", "--reduction", "dpn", "layers=1,2", "--report_to", "wandb")))
    wandb.finish()
    wandb.teardown()  # the file is written by a process of its own
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*.wandb"))
    assert b"train/share_1x2@2" in written
    assert b"train/realised_rate" in written
