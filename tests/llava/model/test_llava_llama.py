"""The whole model: batches equal singles, generation equals recomputing, losses are what they say."""

import pytest
import torch

from llava.model.reduction import expert_indices
from tests.llava.model.prompts import PROMPTS, WITH_ROUTER, alone, make_batch

DPN = ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
ROUTES = [["1x1", "2x2", "1x2"], ["2x2", "1x1", "1x1"], ["2x2", "2x2", "2x2"], ["1x2", "1x1", "2x2"]]
KERNELS = ((1, 1), (1, 2), (2, 2))


def generate(model, batch, **kwargs):
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, **kwargs}
    inputs = {name: value for name, value in batch.items() if name in ("attention_mask", "images")}
    return model.generate_with_report(batch["input_ids"], **inputs, **options)


@pytest.mark.parametrize("words", [(), DPN, (*DPN, "preset=paper", "router_placement=first_turn")])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_answers_as_each_prompt_alone(tiny_llava, words, side):
    model = tiny_llava(*words)[1].eval()
    routes = expert_indices(ROUTES, KERNELS) if words else None
    prompts = WITH_ROUTER if "preset=paper" in words else PROMPTS
    ids, reports = generate(model, make_batch(prompts, side=side), routes=routes)
    assert len({tuple(row) for row in ids.tolist()}) == len(PROMPTS)
    for row in range(len(PROMPTS)):
        single, report = generate(
            model, alone(row, prompts), routes=None if routes is None else routes[row : row + 1]
        )
        assert ids[row].tolist() == single[0].tolist()
        assert reports[row].tokens_per_layer == report[0].tokens_per_layer
        assert reports[row].route == report[0].route


def test_routes_change_the_answer_so_that_the_tests_above_can_fail(tiny_llava):
    model = tiny_llava(*DPN)[1].eval()
    batch = make_batch()
    answers = [generate(model, batch, routes=expert_indices([route] * 4, KERNELS))[0] for route in ROUTES[:2]]
    assert not torch.equal(*answers)


@pytest.mark.parametrize("words", [(), DPN])
def test_cached_generation_equals_recomputing_every_step(tiny_llava, words):
    model = tiny_llava(*words)[1].eval()
    batch, routes = make_batch(), expert_indices(ROUTES, KERNELS) if words else None
    ids, _ = generate(model, batch, routes=routes)
    for row in range(len(PROMPTS)):
        longer = alone(row)
        for token in ids[row]:
            chosen = (
                model(**longer, routes=None if routes is None else routes[row : row + 1])
                .logits[0, -1]
                .argmax()
            )
            assert chosen == token
            step = {"input_ids": token.reshape(1, 1), "attention_mask": torch.ones(1, 1, dtype=torch.bool)}
            longer |= {name: torch.cat([longer[name], value], dim=1) for name, value in step.items()}
            longer["labels"] = torch.full_like(longer["input_ids"], -100)


def test_beams_and_several_samples_per_prompt_follow_their_own_route(tiny_llava):
    model = tiny_llava(*DPN)[1].eval()
    routes = expert_indices(ROUTES, KERNELS)
    ids, reports = generate(model, make_batch(), routes=routes, num_beams=3)
    assert [report.route[0] for report in reports] == ["1x1", "2x2", "1x1", "1x2"]  # row 2 is text only
    assert [len(report.visual_grids) for report in reports] == [1, 1, 0, 2]
    for row in range(4):
        single, _ = generate(model, alone(row), routes=routes[row : row + 1], num_beams=3)
        assert ids[row].tolist() == single[0].tolist()


def test_the_report_counts_what_the_layers_saw(tiny_llava):
    model = tiny_llava(*DPN)[1].eval()
    _, reports = generate(model, make_batch(), routes=expert_indices(ROUTES, KERNELS))
    assert reports[0].visual_tokens_per_layer == (16, 16, 4, 2)
    assert reports[0].tokens_per_layer == (21, 21, 9, 7)
    assert reports[3].visual_tokens_per_layer == (32, 16, 16, 4)
    assert reports[2].route == ("1x1", "1x1", "1x1")
    assert [report.visual_grids for report in reports[1:]] == [((4, 4),), (), ((4, 4), (4, 4))]
    assert all(abs(sum(row) - 1) < 1e-5 for row in reports[0].probabilities)
    dense = generate(tiny_llava()[1].eval(), make_batch())[1]
    assert dense[0].visual_tokens_per_layer == (16,) * 4
    assert dense[0].tokens_per_layer == (21,) * 4
    assert dense[3].visual_grids == ((4, 4), (4, 4))


@pytest.mark.parametrize("words", [(), DPN])
def test_training_and_evaluation_give_one_loss(tiny_llava, words):
    model = tiny_llava(*words, "gate=none")[1] if words else tiny_llava()[1]
    batch = make_batch(side="right", answers=2)
    routes = expert_indices(ROUTES, KERNELS) if words else None
    evaluated = model.eval()(**batch, routes=routes)
    trained = model.train()(**batch, routes=routes)
    torch.testing.assert_close(trained.metrics["language_loss"], evaluated.metrics["language_loss"])
    assert trained.logits is None
    flat = torch.nn.functional.cross_entropy
    if not words:
        logits, labels = evaluated.logits, torch.full(evaluated.logits.shape[:2], -100)
        for row, (ids, count) in enumerate(PROMPTS):
            length = len(ids) + 15 * count
            labels[row, length - 2 : length] = batch["labels"][row, : len(ids)][-2:]
        expected = flat(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        torch.testing.assert_close(evaluated.loss, expected)


def test_splitting_a_step_into_micro_batches_changes_neither_loss_nor_gradient(tiny_llava):
    words = (*DPN, "preset=paper", "router_placement=first_turn", "loss_weight=0.5", "gate=probability")
    rows, routes = [0, 1, 3], expert_indices(ROUTES, KERNELS)
    results = []
    for parts in ([rows], [[row] for row in rows]):
        model = tiny_llava(*words)[1].train()
        total = 0.0
        for part in parts:
            prompts = [PROMPTS[row] for row in part]
            batch = (
                make_batch(prompts, side="right", answers=2) if len(part) > 1 else alone(part[0], answers=2)
            )
            if len(part) > 1:
                batch["images"] = torch.cat([alone(row)["images"] for row in part])
            loss = model(**batch, routes=routes[part], num_items_in_batch=6).loss
            loss.backward()
            total += loss.detach()
        results.append((total, model.lm_head.weight.grad))
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-3, rtol=0)


def test_text_only_training_batches_run_every_parameterised_module(tiny_llava):
    model = tiny_llava(*DPN)[1].train()
    batch = make_batch([PROMPTS[2], PROMPTS[2]], side="right", answers=2)
    output = model(**batch)
    output.loss.backward()
    trained = [name for name, parameter in model.named_parameters() if "vision_tower" not in name]
    without = [name for name in trained if model.get_parameter(name).grad is None]
    assert not without
    assert output.metrics["routing_loss"] == 0


def test_wrong_inputs_are_refused_with_what_to_do(tiny_llava):
    model = tiny_llava(*DPN)[1].eval()
    batch = make_batch()
    with pytest.raises(ValueError, match=r"row 3 of the batch needs 2 image\(s\)"):
        model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], images=batch["images"][:-1]
        )
    with pytest.raises(ValueError, match="images is None"):
        model.generate(batch["input_ids"])
    with pytest.raises(ValueError, match="prefill_chunk_size"):
        model.generate(batch["input_ids"], images=batch["images"], prefill_chunk_size=4)
    with pytest.raises(ValueError, match="56x56"):
        model.generate(batch["input_ids"], images=torch.zeros(5, 3, 28, 28))


def test_a_step_whose_answers_were_all_cut_off_changes_nothing(tiny_llava):
    model = tiny_llava(*DPN)[1].train()
    output = model(**make_batch(side="right"), num_items_in_batch=torch.tensor(0))
    output.loss.backward()
    assert output.loss == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_in_training_mode_without_labels_there_are_logits(tiny_llava):
    model = tiny_llava()[1].train()
    batch = make_batch()
    assert model(**{**batch, "labels": None}).logits.shape[0] == 4


@pytest.mark.parametrize("words", [(), DPN], ids=["plain", "dpn"])
def test_without_return_dict_the_output_is_a_tuple_of_what_is_there(tiny_llava, words):
    model = tiny_llava(*words)[1].eval()
    batch = make_batch(answers=2)
    expected = model(**batch)
    for settings, options in (({}, {"return_dict": False}), ({"return_dict": False}, {})):
        for name, value in settings.items():
            setattr(model.config, name, value)
        found = model(**batch, **options)
        assert isinstance(found, tuple)
        assert torch.equal(found[0], expected.loss)
        assert torch.equal(found[1], expected.logits)
        assert len(found) == len(expected.to_tuple())
    assert torch.equal(model(**batch, return_dict=True).logits, expected.logits)
