import json

import pytest
import torch

from llava.train.arguments import TrainingArguments
from llava.train.checkpoint import PROJECTOR_ONLY, last_checkpoint
from llava.train.trainer import LlavaTrainer, MetricMeans, parameter_groups


def collate(samples):
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


@pytest.fixture
def build(stub, tmp_path):
    def make(partial=None, **given):
        settings = {
            "output_dir": str(tmp_path),
            "use_cpu": True,
            "disable_tqdm": True,
            "per_device_train_batch_size": 2,
            "max_steps": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
        }
        arguments = TrainingArguments(**(settings | given))
        return LlavaTrainer(
            model=stub.model,
            args=arguments,
            train_dataset=stub.dataset,
            data_collator=collate,
            partial=partial,
        )

    return make


def freeze_all_but_the_projector(model):
    model.requires_grad_(False)
    model.model.mm_projector.requires_grad_(True)


def rates_by_parameter(trainer):
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    return {names[p]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_projector_and_reducer_have_learning_rates_of_their_own(build):
    trainer = build(learning_rate=1e-3, mm_projector_lr=5e-5, weight_decay=0.1)
    rates = rates_by_parameter(trainer)
    assert rates["lm_head.weight"] == (1e-3, 0.1)
    assert rates["lm_head.bias"] == (1e-3, 0)
    assert rates["model.norm.weight"] == (1e-3, 0)
    assert rates["model.mm_projector.0.weight"] == (5e-5, 0.1)
    assert rates["model.mm_projector.0.bias"] == (5e-5, 0)
    assert rates["model.reducer.weight"] == (4e-3, 0.1)
    assert rates["model.reducer.bias"] == (4e-3, 0)


def test_without_rates_of_their_own_there_are_two_groups(build, stub):
    stub.model.router_lr_scale = 1.0
    trainer = build(learning_rate=1e-3, weight_decay=0.1)
    assert {group["lr"] for group in trainer.create_optimizer().param_groups} == {1e-3}
    assert len(trainer.optimizer.param_groups) == 2


def test_the_first_group_is_the_models_because_its_rate_is_logged(stub):
    groups = parameter_groups(
        reversed(list(stub.model.named_parameters())),
        set(),
        weight_decay=0.0,
        learning_rates={"reducer": 1.0},
    )
    assert "lr" not in groups[0]


def test_frozen_parameters_are_in_no_group(build, stub):
    stub.model.model.vision_tower.requires_grad_(False)
    assert not [name for name in rates_by_parameter(build()) if "vision_tower" in name]


def test_a_model_with_nothing_to_train_is_refused(build, stub):
    stub.model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing is trained"):
        build().create_optimizer()


@pytest.mark.parametrize("found", [(torch.optim.AdamW, {"params": []}), (lambda: None, {})])
def test_an_optimizer_that_sorts_parameters_by_itself_is_refused(found, build, monkeypatch):
    trainer = build()
    monkeypatch.setattr(trainer, "get_optimizer_cls_and_kwargs", lambda *_: found)
    with pytest.raises(ValueError, match="--optim adamw_torch sorts the parameters by itself"):
        trainer.create_optimizer()


def test_the_model_is_told_of_every_micro_step_once(build, stub):
    build(gradient_accumulation_steps=3).train()
    assert len(stub.model.observed) == 6


def test_the_loss_is_divided_by_the_tokens_of_the_whole_step(build, stub):
    trainer = build(gradient_accumulation_steps=3, max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]["loss"]
    assert logged == pytest.approx(sum(stub.model.observed), rel=1e-5)  # each part is already a share


def test_every_micro_batch_is_told_its_share_of_the_steps_samples_with_images(build, stub, monkeypatch):
    monkeypatch.setattr("llava.train.trainer.IMAGE_TOKEN_INDEX", 3)  # an id of the stub's
    seen = []
    stub.model.register_forward_pre_hook(
        lambda _, arguments, given: seen.append((given["input_ids"], given["routed_samples"].tolist())),
        with_kwargs=True,
    )
    build(gradient_accumulation_steps=3, max_steps=2).train()
    counts = [int((ids == 3).any(1).sum()) for ids, _ in seen]
    assert [told for _, (told, _) in seen] == counts
    assert [total for _, (_, total) in seen] == [sum(counts[:3])] * 3 + [sum(counts[3:])] * 3
    assert len(set(counts)) > 1


def test_the_models_metrics_are_logged_as_means(build):
    trainer = build(gradient_accumulation_steps=2)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["rate"] for line in lines] == [1.0, 3.0]  # means of 0.5, 1.5 and of 2.5, 3.5
    assert "rate" not in trainer.state.log_history[-1]


def test_means_start_again_after_each_line():
    means = MetricMeans()
    means.add({"rate": torch.tensor(1.0)})
    means.add({"rate": torch.tensor(2.0), "share": torch.tensor(3.0)})
    assert means.pop() == {"rate": 1.5, "share": 3.0}
    assert means.pop() == {}


def test_grouping_makes_batches_of_one_modality(build, stub):
    trainer = build(group_by_modality_length=True, gradient_accumulation_steps=1)
    order = list(trainer._get_train_sampler(stub.dataset))
    assert sorted(order) == list(range(12))
    signs = [stub.dataset.modality_lengths[index] > 0 for index in order]
    assert all(signs[at] == signs[at + 1] for at in range(0, 12, 2))


@pytest.mark.parametrize("is_grouped", [True, False])
def test_ranks_draw_differently_and_share_one_order(build, is_grouped, monkeypatch):
    draws, orders = [], []
    for rank in (0, 1):
        monkeypatch.setattr(TrainingArguments, "process_index", rank)
        trainer = build(group_by_modality_length=is_grouped)
        draws.append(torch.rand(3))
        orders.append([batch["input_ids"][:, 0].tolist() for batch in trainer.get_train_dataloader()])
    assert not torch.equal(*draws)
    assert orders[0] == orders[1]
    assert [first for batch in orders[0] for first in batch] != list(range(12))


def test_stage_one_checkpoints_hold_the_projector_and_all_that_resuming_needs(build, stub, tmp_path):
    freeze_all_but_the_projector(stub.model)
    build(PROJECTOR_ONLY, max_steps=2, save_strategy="steps", save_steps=1).train()
    found = last_checkpoint(tmp_path)
    assert found == tmp_path / "checkpoint-2"
    names = {file.name for file in found.iterdir()}
    assert {"mm_projector.bin", "config.json", "optimizer.pt", "scheduler.pt", "trainer_state.json"} <= names
    assert not list(found.glob("*.safetensors"))  # the frozen language model is not written again and again


def test_stage_one_resumed_takes_the_same_steps_as_uninterrupted(build, stub, tmp_path):
    freeze_all_but_the_projector(stub.model)
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    build(PROJECTOR_ONLY, **settings).train()
    whole = {name: tensor.clone() for name, tensor in stub.model.state_dict().items()}
    stub.model.model.mm_projector[0].reset_parameters()
    resumed = build(PROJECTOR_ONLY, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(stub.model.observed) == 6
    assert all(torch.equal(tensor, whole[name]) for name, tensor in stub.model.state_dict().items())


def test_stage_one_keeps_no_more_checkpoints_than_told(build, stub, tmp_path):
    freeze_all_but_the_projector(stub.model)
    build(PROJECTOR_ONLY, max_steps=3, save_strategy="steps", save_steps=1, save_total_limit=1).train()
    assert [folder.name for folder in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]


def test_only_the_first_rank_writes_though_every_rank_is_called(build, stub, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "process_index", 1)
    trainer = build(PROJECTOR_ONLY)
    assert trainer.args.local_rank == -1  # of every rank, so nothing may depend on it
    trainer.save_model(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_projector_of_another_model_is_not_resumed(build, stub, tmp_path):
    freeze_all_but_the_projector(stub.model)
    build(PROJECTOR_ONLY, max_steps=1, save_strategy="steps", save_steps=1).train()
    stub.model.model.mm_projector[2] = torch.nn.Linear(8, 8, bias=False)
    with pytest.raises(ValueError, match=r"has \['model\.mm_projector\.2\.bias'\] too many"):
        build(PROJECTOR_ONLY, max_steps=2).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_a_checkpoint_of_another_model_is_refused(build, stub, tmp_path):
    build(max_steps=1, save_strategy="steps", save_steps=1).train()
    stub.model.model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"belongs to another model: it lacks \['model\.extra"):
        build(max_steps=2).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_a_resumed_run_takes_the_same_steps_as_an_uninterrupted_one(build, stub, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "group_by_modality_length": True}
    build(**settings).train()
    whole = {name: tensor.clone() for name, tensor in stub.model.state_dict().items()}
    resumed = build(**settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(stub.model.observed) == 6
    for name, tensor in stub.model.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    state = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())
    assert state["global_step"] == 4
