"""Training steps on a batch: gradients, optimizer groups and losses equal the original LLaVA-1.5."""

import json
from types import SimpleNamespace

import pytest
import torch

from llava.train.trainer import LlavaTrainer, parameter_groups
from tests.golden_data import case_folder
from tests.llava.model.golden import arrays, index, load
from tests.llava.model.test_golden_batch import batch_of

NAME = "train_steps"
RATE, DECAY = 1e-3, 0.1
close = torch.testing.assert_close


@pytest.fixture
def model(tmp_path):
    return load("llava-tiny", tmp_path / "model")[0].train()


@pytest.fixture(scope="module")
def facts():
    return json.loads((case_folder("batch") / f"{NAME}.json").read_text())


def loss_of(model, facts):
    case, data = index("batch")[facts["batch"]], arrays("batch", facts["batch"])
    return model(input_ids=data["input_ids"], labels=data["labels_in"], **batch_of(case, data)).loss


def groups_of(model, rates):
    decayed = set(LlavaTrainer.get_decay_parameter_names(SimpleNamespace(), model))
    return parameter_groups(model.named_parameters(), decayed, weight_decay=DECAY, learning_rates=rates)


def test_gradients_equal_the_originals(model, facts):
    expected = arrays("batch", NAME)
    loss_of(model, facts).backward()
    trained = {name: item for name, item in model.named_parameters() if item.requires_grad}
    norms = {name: item.grad.norm().item() for name, item in trained.items()}
    assert norms == pytest.approx(
        {name: norm for name, norm in facts["grad_l2_norms"].items() if norm is not None}, rel=1e-3
    )
    for key, value in expected.items():
        if key.startswith("grad/"):
            noise = 1e-5 * value.abs().max().item()  # float32's, which single entries near zero drown in
            close(trained[key.removeprefix("grad/")].grad, value, rtol=1e-3, atol=noise)
    rows = model.get_input_embeddings().weight.grad.norm(dim=1)
    close(rows, expected["embed_row_grad_norm"], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("kind", "rates"), [("no_projector_lr", {}), ("projector_lr", {"projector": 2e-4})])
def test_optimizer_groups_equal_the_originals(model, facts, kind, rates):
    names = {id(item): name for name, item in model.named_parameters()}
    ours = {
        (group["weight_decay"], group.get("lr", RATE)): {names[id(item)] for item in group["params"]}
        for group in groups_of(model, rates)
    }
    expected = facts["param_groups"][kind]
    assert ours == {(group["weight_decay"], group["lr"]): set(group["names"]) for group in expected}


def test_losses_and_weights_after_adamw_steps_equal_the_originals(model, facts):
    optimizer = torch.optim.AdamW(groups_of(model, {}), lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for _ in facts["losses"][1:]:
        optimizer.zero_grad()
        loss = loss_of(model, facts)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    losses.append(loss_of(model, facts).item())
    assert losses == pytest.approx(facts["losses"], rel=1e-3)
    for key, value in arrays("batch", NAME).items():
        if key.startswith("after"):
            weight = model.get_parameter(key.split("/")[1])
            close(weight, value, rtol=1e-3, atol=1e-7)
