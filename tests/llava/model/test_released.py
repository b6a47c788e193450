"""Checkpoints in the layout of the paper's authors: ours equals a slow script that knows only the layout."""

import itertools

import numpy as np
import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.reduction import from_dict, parse_reduction, routing_prompt
from tests.llava.model.released_reference import Released
from tests.llava.model.released_writer import (
    ROUTER_ID,
    SIDE,
    published_pooling,
    write_checkpoint,
    write_tower,
)

NAMES = ("1x1", "1x2", "2x2")


def load(path, **options):
    return load_pretrained_model(str(path), None, device="cpu", device_map=None, **options)


def make_samples():
    """Prompts with one image, none, two, two routing tokens, and one that ends with its routing token."""
    generator = torch.Generator().manual_seed(3)

    def words(count):
        return torch.randint(3, ROUTER_ID, (count,), generator=generator).tolist()

    shapes = [
        [1, *words(4), -200, *words(9), ROUTER_ID, *words(3)],
        [1, *words(12)],
        [1, -200, *words(2), -200, *words(5), ROUTER_ID, *words(3)],
        [1, *words(2), -200, *words(6), ROUTER_ID, *words(7), ROUTER_ID, *words(4)],
        *([1, *words(3), -200, *words(number), ROUTER_ID, *words(3)] for number in range(3, 7)),
        [1, -200, *words(6), ROUTER_ID],
    ]
    counts = [ids.count(-200) for ids in shapes]
    pixels = [torch.randn(max(1, count), 3, SIDE, SIDE, generator=generator) for count in counts]
    return list(zip(shapes, pixels, strict=True))


def make_batch(samples, side="left", answers=0):
    """Pad samples to one batch; the last tokens of every row are supervised."""
    length = max(len(ids) for ids, _ in samples)
    batch = {"input_ids": torch.zeros(len(samples), length, dtype=torch.long)}
    batch["attention_mask"] = torch.zeros(len(samples), length, dtype=torch.bool)
    labels = torch.full_like(batch["input_ids"], -100)
    for row, (ids, _) in enumerate(samples):
        place = slice(length - len(ids), length) if side == "left" else slice(0, len(ids))
        batch["input_ids"][row, place], batch["attention_mask"][row, place] = torch.tensor(ids), True
        labels[row, place][len(ids) - answers :] = torch.tensor(ids[len(ids) - answers :])
    batch["images"] = torch.cat([pixels for _, pixels in samples])
    return batch | ({"labels": labels} if answers else {})


SAMPLES = make_samples()


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    return write_tower(tmp_path_factory.mktemp("released") / "clip")


@pytest.fixture(scope="module")
def write(tower, tmp_path_factory):
    """A function that writes a checkpoint into a new folder."""
    return lambda **options: write_checkpoint(tmp_path_factory.mktemp("released") / "dpn", tower, **options)


@pytest.fixture(scope="module")
def published(write):
    """Give the folder of a checkpoint in the published setting, the slow script's model of it, and ours."""
    folder = write()
    return folder, Released(folder), load(folder)


def assert_same(model, reference, samples=SAMPLES, side="left"):
    """Compare routes, probabilities and the logits of every text token; return the routes."""
    model.config.tokenizer_padding_side = side
    with torch.no_grad():
        output = model(**make_batch(samples, side))
    lengths = model.splice(**{**splice_arguments(samples), "padding_side": side}).lengths
    routes = []
    for row, (ids, pixels) in enumerate(samples):
        expected = reference.run(ids, pixels)
        offset = max(lengths) - lengths[row] if side == "left" else 0
        for index, logits in expected["logits"].items():
            torch.testing.assert_close(output.logits[row, offset + index], logits, atol=2e-4, rtol=2e-4)
        names = tuple("1x1" if choice is None else NAMES[choice] for choice in expected["route"])
        assert output.routing.route_names(row) == names
        for place, probabilities in enumerate(expected["probabilities"]):
            if probabilities is not None:
                found = output.routing.probabilities[place, row]
                torch.testing.assert_close(found, probabilities, atol=1e-5, rtol=1e-5)
        routes.append(names)
    return routes


def splice_arguments(samples):
    batch = make_batch(samples)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": None,
        "images": batch["images"],
        "image_sizes": None,
    }


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_routes_and_probabilities_are_those_of_the_slow_script(published, side):
    _, reference, (_, model, _, _) = published
    routes = assert_same(model, reference, side=side)
    assert len(set(routes)) >= 4  # else pooling could be wrong unseen
    assert {name for route in routes for name in route} == set(NAMES)


@pytest.mark.parametrize("changed", [{"router_version": "v2"}, {"pooling_function": "avg"}], ids=str)
def test_the_other_supported_settings_are_those_of_the_slow_script(write, changed):
    folder = write(pooling=published_pooling(**changed), seed=2)
    routes = assert_same(load(folder)[1], Released(folder), SAMPLES[:4])
    assert len(set(routes)) >= 3


def test_a_sample_alone_gives_what_it_gives_in_a_batch_of_other_routes(published):
    _, reference, (_, model, _, _) = published
    for sample in SAMPLES[:4]:
        assert_same(model, reference, [sample])


def test_greedy_answers_with_a_cache_are_those_computed_again_for_every_token(published):
    _, reference, (_, model, _, _) = published
    batch = make_batch(SAMPLES[:5])
    found = model.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], images=batch["images"], max_new_tokens=4
    )
    expected = [reference.greedy(ids, pixels, 4) for ids, pixels in SAMPLES[:5]]
    assert found.tolist() == expected
    assert len({tuple(answer) for answer in expected}) == 5


@pytest.mark.parametrize("is_detached", [False, True])
def test_losses_and_gradients_of_sampled_routes_are_those_of_the_slow_script(write, is_detached):
    folder = write(pooling=published_pooling(detach_cls_token_to_predict=is_detached), seed=2)
    reference, model = Released(folder), load(folder)[1].train()
    torch.manual_seed(5)
    output = model(**make_batch(SAMPLES, "right", answers=2))
    output.loss.backward()
    choices = np.stack(output.routing.choices, axis=1)  # samples, places
    likely = output.routing.probabilities.argmax(-1).T.numpy()
    assert ((choices != likely) & (choices >= 0)).sum() >= 3  # else only the most probable are seen
    for name, value in reference.weights.items():
        value.requires_grad_("vision_tower" not in name and "inv_freq" not in name)
    samples = [(ids, pixels, [-100] * (len(ids) - 2) + ids[-2:]) for ids, pixels in SAMPLES]
    total, count, routing_loss = reference.losses(samples, choices.tolist())
    assert routing_loss > 0.1
    torch.testing.assert_close(output.metrics["routing_loss"], routing_loss.detach(), atol=1e-5, rtol=1e-5)
    loss = total / count + 0.01 * routing_loss
    torch.testing.assert_close(output.loss, loss, atol=1e-4, rtol=1e-5)
    loss.backward()
    ours = dict(model.named_parameters())
    pairs = {
        "model.layers.0.pooling_router.predictor.weight": "model.reducer.routers.0.predictor.weight",
        "model.layers.1.pooling_router.mlp1.1.weight": "model.reducer.routers.1.hidden.weight",
        "model.layers.3.pooling_router.mlp1.0.bias": "model.reducer.routers.2.norm.bias",
        **{name: name for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight")},
        "model.mm_projector.0.weight": "model.mm_projector.0.weight",
    }
    for theirs, name in pairs.items():
        expected = reference.weights[theirs].grad
        error = (ours[name].grad - expected).norm() / expected.norm()
        assert error < 1e-3, (name, float(error))


def test_the_hinge_is_taken_once_of_the_mean_over_samples_and_places(write):
    folder = write()
    reference, model = Released(folder), load(folder)[1]
    theirs, ours = (
        "model.layers.0.pooling_router.predictor.weight",
        "model.reducer.routers.0.predictor.weight",
    )
    with torch.no_grad():  # the first place is so sure of 2x2 that a hinge of its own would be at zero
        reference.weights[theirs] *= 20
        model.state_dict()[ours].mul_(20)
        output = model(**make_batch(SAMPLES, "right", answers=2))
    samples = [(ids, pixels, [-100] * len(ids)) for ids, pixels in SAMPLES]
    expected = reference.losses(samples, np.stack(output.routing.choices, axis=1).tolist())[2]
    best, index = output.routing.probabilities[:, output.routing.is_routed.all(0)].max(-1)
    per_place = (1.5 - (best * index).mean(1)).clamp(min=0).mean()
    torch.testing.assert_close(output.metrics["routing_loss"], expected, atol=1e-5, rtol=1e-5)
    assert per_place > expected + 0.05


def test_every_route_gives_the_logits_of_the_slow_script(published):
    _, reference, (_, model, _, _) = published
    ids, pixels = SAMPLES[3]
    routes = list(itertools.product(range(3), repeat=3))
    batch = make_batch([(ids, pixels)] * len(routes))
    with torch.no_grad():
        output = model(**batch, routes=torch.tensor(routes))
    for row, route in enumerate(routes):
        expected = reference.run(ids, pixels, route)
        torch.testing.assert_close(output.logits[row, -1], expected["rows"][-1], atol=2e-4, rtol=2e-4)
        kept = sum(not isinstance(kind, int) for kind in expected["kinds"])
        assert output.routing.visual_counts[-1][row] == kept


def test_training_never_draws_an_expert_that_leaves_fewer_than_18_visual_tokens(published):
    model = published[2][1].train()
    drawn = set()
    for seed in range(6):
        torch.manual_seed(seed)
        routing = model(**make_batch(SAMPLES, "right", answers=2)).routing
        has_image = routing.visual_counts[0] > 0
        assert min(counts[has_image].min() for counts in routing.visual_counts) >= 18
        drawn |= {tuple(route) for route in np.stack(routing.choices, axis=1).tolist()}
    model.eval()
    assert len(drawn) >= 8


def test_the_tokenizer_has_the_routing_token_and_prompts_get_it(published):
    tokenizer, model, processor, _ = published[2]
    assert (len(tokenizer), model.model.embed_tokens.num_embeddings) == (1001, 1001)
    assert tokenizer.convert_tokens_to_ids("<ROUTER>") == model.config.router_token_id == ROUTER_ID
    assert tokenizer("what<ROUTER> ASSISTANT:").input_ids.count(ROUTER_ID) == 1
    assert tokenizer.decode([ROUTER_ID, 393], skip_special_tokens=True).strip() == "he"
    assert routing_prompt(from_dict(model.config.reduction)) == ("<ROUTER>", "every_turn")
    assert processor.crop_size["height"] == SIDE
    asked = parse_reduction(["dpn", "preset=paper", "layers=1,2,4"])
    assert from_dict(model.config.reduction) == asked


def test_routes_can_be_forced_on_a_released_checkpoint(published):
    forced = load(published[0], reduction=["dpn", "eval_choice=static", "route=1x2,2x2,1x1"])[1]
    with torch.no_grad():
        routing = forced(**make_batch(SAMPLES[:1])).routing
    assert routing.route_names(0) == ("1x2", "2x2", "1x1")
    assert routing.visual_counts[-1].tolist() == [18]
