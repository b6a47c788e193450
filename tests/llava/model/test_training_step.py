"""A training step: packed, its loss the same however it is split, checkpointed or not."""

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.reduction import expert_indices
from tests.llava.model.prompts import PROMPTS, WITH_ROUTER, make_batch, make_images

DPN = ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
PAPER = (*DPN, "preset=paper", "router_placement=first_turn", "loss_weight=0.5")
NAMES = [["1x1", "2x2", "1x2"], ["2x2", "1x1", "1x1"], ["2x2", "2x2", "2x2"], ["1x2", "1x1", "2x2"]]
ROUTES = expert_indices(NAMES, ((1, 1), (1, 2), (2, 2)))
ANSWERS = (2, 3, 2, 4)
"""Supervised tokens of every row: micro batches of a step have different shares of them."""


def batch_of(rows, prompts):
    """Some of the prompts as a batch of their own, with the pixels they have in the whole one."""
    chosen = [(prompts[row][0] + list(range(91, 91 + ANSWERS[row])), prompts[row][1]) for row in rows]
    batch = make_batch(chosen, side="right")
    for index, (ids, _) in enumerate(chosen):
        supervised = slice(len(ids) - ANSWERS[rows[index]], len(ids))
        batch["labels"][index, supervised] = batch["input_ids"][index, supervised]
    batch["images"] = torch.cat([make_images(max(1, prompts[row][1]), seed=row) for row in rows])
    return batch | {"routes": ROUTES[rows]}


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "split", [[[0, 1], [2, 3]], [[0], [1, 2], [3]], [[2], [0, 1, 3]], [[3], [2], [1], [0]]]
)
def test_loss_and_every_gradient_of_a_step_are_the_same_however_it_is_split(tiny_llava, split):
    results = []
    for parts in ([[0, 1, 2, 3]], split):
        model = tiny_llava(*PAPER, "train_choice=argmax", "target=3")[1].train()
        total = 0.0
        for rows in parts:
            batch = batch_of(rows, WITH_ROUTER)
            routed = (batch["input_ids"] == IMAGE_TOKEN_INDEX).any(1).sum()
            shares = {
                "num_items_in_batch": sum(ANSWERS),
                "routed_samples": torch.stack([routed, torch.tensor(3)]),
            }
            output = model(**batch, **shares)
            output.loss.backward()
            total += output.loss.detach()
        results.append((total, gradients(model)))
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=1e-5)
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(
            results[1][1][name], gradient, atol=2e-5 * scale + 1e-9, rtol=1e-4, msg=name
        )
    assert results[0][1]["model.reducer.routers.0.predictor.weight"].abs().max() > 0


@pytest.mark.parametrize("words", [PAPER, DPN, ()])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_leaves_the_loss_bitwise_and_the_gradients_to_a_millionth(
    tiny_llava, words, use_reentrant
):
    results = []
    for is_checkpointed in (False, True):
        model = tiny_llava(*words)[1].train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        batch = batch_of([0, 1, 2, 3], WITH_ROUTER if words == PAPER else PROMPTS)
        if not words:
            batch["routes"] = None
        loss = model(**batch, num_items_in_batch=11).loss
        loss.backward()
        results.append((loss.detach(), gradients(model)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1].keys() == results[1][1].keys()
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, atol=1e-6, rtol=1e-6, msg=name)


def test_in_training_every_layer_and_the_head_see_no_row_more_than_the_routes_leave(tiny_llava):
    model = tiny_llava(*DPN)[1].train()
    seen = []
    for layer in [*model.model.layers, model.lm_head]:
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[-2]))
    output = model(**batch_of([0, 1, 2, 3], PROMPTS))
    per_layer = [int(counts.sum()) for counts in output.routing.token_counts]
    assert seen == [*per_layer, sum(ANSWERS)]
    assert per_layer[-1] < per_layer[0] == sum(len(ids) + 15 * count for ids, count in PROMPTS) + sum(ANSWERS)


@pytest.mark.parametrize("objective", ["policy", "value"])
def test_what_is_learned_from_consequences_is_logged_under_its_own_name(tiny_llava, objective):
    model = tiny_llava(*DPN, f"preset={objective}")[1].train()
    metrics = model(**batch_of([0, 1, 2, 3], PROMPTS)).metrics
    assert {name for name in metrics if name.endswith("_loss")} == {
        "language_loss",
        "routing_loss",
        f"{objective}_loss",
    }
    assert float(metrics[f"{objective}_loss"]) != 0


def test_a_step_hands_on_what_the_policy_measured_of_its_advantages(tiny_llava):
    model = tiny_llava(*DPN)[1].train()
    output = model(**batch_of([0, 1, 2, 3], PROMPTS))
    model.observe_step(output)
    assert model.model.reducer.policy.advantage_moments[0].item() == 3  # one of the four has no image
