"""Every way to generate gives what recomputing gives, with one cache length per stage, or is refused."""

import pytest
import torch
from packaging.version import Version
from transformers import DynamicCache, GenerationConfig
from transformers import __version__ as transformers_version

from dpn.cache import lengths
from llava.model.generation import LOOKUP_SINCE
from llava.model.reduction import expert_indices
from tests.llava.model.prompts import PROMPTS, WITH_ROUTER, alone, make_batch, make_images

DPN = ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
ROUTES = expert_indices(
    [["1x1", "2x2", "1x2"], ["2x2", "1x1", "1x1"], ["2x2", "2x2", "2x2"], ["1x2", "1x1", "2x2"]],
    ((1, 1), (1, 2), (2, 2)),
)
TURN = torch.tensor([[301, 302, 303, 304]])


@pytest.fixture
def model(tiny_llava):
    return tiny_llava(*DPN)[1].eval()


def generate(model, ids, **kwargs):
    return model.generate(ids, **{"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, **kwargs})


def of_row(row):
    """Ids, pixels and route of one prompt."""
    batch = alone(row)
    return batch["input_ids"], {"images": batch["images"], "routes": ROUTES[row : row + 1]}


def logits_of(model, row, ids, prompt_length):
    """Logits of the last token without a cache; a label marks where the first turn's prompt ends."""
    _, given = of_row(row)
    labels = torch.full_like(ids, -100)
    if ids.shape[1] > prompt_length:
        labels[0, prompt_length] = 5
    return model(ids, labels=labels, **given).logits[0, -1]


def greedy(model, row, ids, prompt_length, steps):
    """Continue without any cache."""
    for _ in range(steps):
        best = logits_of(model, row, ids, prompt_length).argmax()
        ids = torch.cat([ids, best.reshape(1, 1)], dim=1)
    return ids[:, -steps:]


@pytest.mark.parametrize("behind", ["only the new ids", "the whole dialogue"])
@pytest.mark.parametrize("row", [0, 2, 3])
def test_a_second_turn_behind_a_returned_cache_equals_recomputing_the_dialogue(model, row, behind):
    ids, given = of_row(row)
    first = generate(model, ids, **given, return_dict_in_generate=True)
    dialogue = torch.cat([ids, first.sequences, TURN], dim=1)
    cache, before = first.past_key_values, lengths(first.past_key_values)
    if behind == "only the new ids":
        new = torch.cat([first.sequences[:, -1:], TURN], dim=1)  # the last answer's id isn't in the cache
        second = generate(model, new, past_key_values=cache)
    else:
        second = generate(model, dialogue, past_key_values=cache, images=given["images"])
    assert torch.equal(second, greedy(model, row, dialogue, ids.shape[1], 6))
    assert lengths(cache) == [length + 1 + TURN.shape[1] + 5 for length in before]


def test_a_second_turn_of_a_batch_needs_the_mask_over_the_cache_and_then_equals_singles(model):
    batch = make_batch()
    cache = DynamicCache()
    given = {"images": batch["images"], "routes": ROUTES}
    first = generate(
        model, batch["input_ids"], attention_mask=batch["attention_mask"], past_key_values=cache, **given
    )
    new = torch.cat([first[:, -1:], TURN.repeat(4, 1)], dim=1)
    with pytest.raises(ValueError, match=r"give attention_mask \(B, \d+\) over the \d+ cached tokens"):
        generate(model, new, past_key_values=cache)
    real = cache.layers[0].prefix_mask
    mask = torch.cat([real, torch.ones(4, 5 + 5, dtype=torch.bool)], dim=1)
    second = generate(model, new, attention_mask=mask, past_key_values=cache)
    for row in range(4):
        ids, _ = of_row(row)
        dialogue = torch.cat([ids, first[row : row + 1], TURN], dim=1)
        assert torch.equal(second[row : row + 1], greedy(model, row, dialogue, ids.shape[1], 6))


def test_a_plain_model_continues_behind_its_cache_too(tiny_llava):
    model = tiny_llava()[1].eval()
    ids, images = alone(0)["input_ids"], make_images(1)
    first = generate(model, ids, images=images, return_dict_in_generate=True)
    dialogue = torch.cat([ids, first.sequences, TURN], dim=1)
    new = torch.cat([first.sequences[:, -1:], TURN], dim=1)
    second = generate(model, new, past_key_values=first.past_key_values)
    assert torch.equal(second, generate(model, dialogue, images=images))


def test_beams_hold_the_scores_that_recomputing_gives(model):
    ids, given = of_row(3)
    out = generate(
        model,
        ids,
        **given,
        num_beams=4,
        num_return_sequences=3,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert len({tuple(row) for row in out.sequences.tolist()}) == 3
    for sequence, score in zip(out.sequences, out.sequences_scores, strict=True):
        total, now = 0.0, ids
        for token in sequence:
            total += logits_of(model, 3, now, ids.shape[1]).log_softmax(-1)[token]
            now = torch.cat([now, token.reshape(1, 1)], dim=1)
        torch.testing.assert_close(total / len(sequence), score, atol=1e-4, rtol=1e-4)


def test_sampled_continuations_of_one_prompt_differ_and_each_follows_its_own_logits(model):
    ids, given = of_row(0)
    torch.manual_seed(0)
    options = {"do_sample": True, "temperature": 2.0, "num_return_sequences": 3}
    out = generate(
        model, ids, **given, **options, return_dict_in_generate=True, output_logits=True, max_new_tokens=4
    )
    assert len({tuple(row) for row in out.sequences.tolist()}) == 3
    for number, sequence in enumerate(out.sequences):
        for step in range(4):
            now = torch.cat([ids, sequence[None, :step]], dim=1)
            expected = logits_of(model, 0, now, ids.shape[1])
            torch.testing.assert_close(out.logits[step][number], expected, atol=1e-4, rtol=1e-4)


def test_a_streamer_gets_every_id_as_it_is_made(model):
    class Streamer:
        def __init__(self):
            self.got, self.has_ended = [], False

        def put(self, value):
            self.got += value.flatten().tolist()

        def end(self):
            self.has_ended = True

    ids, given = of_row(0)
    streamer = Streamer()
    assert generate(model, ids, **given, streamer=streamer)[0].tolist() == streamer.got
    assert streamer.has_ended


@pytest.mark.skipif(
    Version(transformers_version) < LOOKUP_SINCE, reason="transformers loses the prompt's mask"
)
def test_prompt_lookup_takes_back_rejected_candidates_from_every_stage(model):
    ids, given = of_row(0)
    model.lm_head.weight.data[7:] = 0  # few likely ids, so that answers repeat themselves
    options = {"max_new_tokens": 20, "return_dict_in_generate": True, **given}
    slow = generate(model, ids, **options)
    assert len(set(slow.sequences[0].tolist())) > 2
    steps = []
    handle = model.lm_head.register_forward_hook(lambda *_: steps.append(1))
    fast = generate(model, ids, prompt_lookup_num_tokens=3, max_matching_ngram_size=1, **options)
    handle.remove()
    assert torch.equal(fast.sequences, slow.sequences)
    assert len(steps) < 20  # some candidates were right
    assert lengths(fast.past_key_values) == lengths(slow.past_key_values)


def test_prompt_lookup_is_refused_where_transformers_would_lose_the_prompts_mask(model, monkeypatch):
    monkeypatch.setattr("llava.model.generation.transformers_version", "5.17.0")
    ids, given = of_row(0)
    with pytest.raises(ValueError, match=r"needs transformers 5.23 or newer, this is 5.17.0"):
        generate(model, ids, prompt_lookup_num_tokens=3, **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefill_chunk_size": 4}, "doesn't take prefill_chunk_size"),
        ({"guidance_scale": 1.5}, "doesn't take guidance_scale"),
        ({"inputs_embeds": torch.zeros(1, 2, 64)}, "doesn't take inputs_embeds"),
        ({"assistant_model": torch.nn.Linear(1, 1)}, "doesn't take assistant_model"),
        ({"assistant_early_exit": 2}, "doesn't take assistant_early_exit"),
        ({"output_hidden_states": True}, "output_hidden_states=True isn't served"),
        ({"output_attentions": True}, "output_attentions=True isn't served"),
        ({"cache_implementation": "static"}, "StaticLayer"),
    ],
)
def test_what_cannot_work_is_refused_by_name(model, options, message):
    ids, given = of_row(0)
    with pytest.raises(ValueError, match=message):
        generate(model, ids, **given, **options)


def test_output_hidden_states_set_in_the_config_is_refused_too(model):
    ids, given = of_row(0)
    model.config.output_hidden_states = True
    with pytest.raises(ValueError, match="output_hidden_states=True isn't served"):
        generate(model, ids, **given)


@pytest.mark.parametrize("late", ["routes", "a budget"])
@pytest.mark.parametrize("behind", ["only the new ids", "the whole dialogue", "the whole text"])
def test_routes_behind_a_filled_cache_are_refused_because_they_would_change_nothing(model, behind, late):
    ids, given = (TURN, {"routes": ROUTES[:1]}) if behind == "the whole text" else of_row(0)
    first = generate(model, ids, **given, return_dict_in_generate=True)
    new = torch.cat([first.sequences[:, -1:], TURN], dim=1)
    if behind == "the whole text":
        new = torch.cat([ids, first.sequences, TURN], dim=1)
    elif behind == "the whole dialogue":
        new = torch.cat([ids, first.sequences, TURN], dim=1)
        given = {"images": given["images"]}
    else:
        given = {}
    asked = {"routes": ROUTES[:1]} if late == "routes" else {"router_shift": torch.ones(1)}
    given = {name: value for name, value in given.items() if name != "routes"} | asked
    with pytest.raises(ValueError, match=rf"{late}.* behind a filled cache would change nothing"):
        generate(model, new, past_key_values=first.past_key_values, **given)


def test_caches_of_another_model_batch_or_dialogue_are_refused(model, tiny_llava):
    ids, given = of_row(0)
    first = generate(model, ids, **given, return_dict_in_generate=True)
    cache, new = first.past_key_values, torch.cat([first.sequences[:, -1:], TURN], dim=1)
    other = tiny_llava("dpn", "layers=1,3", "min_tokens=0", "skip_below=0")[1].eval()
    with pytest.raises(ValueError, match=r"pooled in front of the layers \(1, 2, 3\), not \(1, 3\)"):
        generate(other, new, past_key_values=cache)
    with pytest.raises(ValueError, match=r"pooled in front of the layers \(1, 2, 3\), not \(\)"):
        generate(tiny_llava()[1].eval(), new, past_key_values=cache)
    with pytest.raises(ValueError, match=r"it holds 1 rows \(prompts x beams\), the new ids 3"):
        generate(model, new, past_key_values=cache, num_beams=3)
    with pytest.raises(ValueError, match=r"attention_mask covers 8 tokens, the cache holds 26"):
        generate(model, new, attention_mask=torch.ones(1, 8), past_key_values=cache)
    with pytest.raises(ValueError, match=r"holds 26 tokens, but the dialogue has only 21"):
        generate(model, ids, past_key_values=cache, images=given["images"])


def test_a_dialogue_read_again_takes_the_routes_of_its_first_turn(tiny_llava):
    model = tiny_llava(*DPN)[1].eval()
    with torch.no_grad():  # routes that hang on the state that is read
        for router in model.model.reducer.routers:
            router.predictor.weight.mul_(50)
    batch = make_batch()
    mask = batch["attention_mask"]
    longer = torch.cat([batch["input_ids"], TURN.repeat(4, 1)], dim=1)
    wider = torch.cat([mask, torch.ones(4, 4, dtype=torch.long)], dim=1)
    given = {"images": batch["images"], "max_new_tokens": 1}

    def routes(ids, mask, **more):
        _, reports = model.generate_with_report(ids, attention_mask=mask, **given, **more)
        return [sample.route for sample in reports]

    first = routes(batch["input_ids"], mask)
    assert routes(longer, wider, first_turn_lengths=mask.sum(1)) == first
    assert routes(longer, wider) != first
    with pytest.raises(ValueError, match="first_turn_lengths needs one number per prompt, from 1 to its ids"):
        routes(longer, wider, first_turn_lengths=[1, 2, 3, 99])


def test_a_batch_whose_padding_moved_between_turns_is_refused(model):
    batch, cache = make_batch(), DynamicCache()
    given = {"images": batch["images"], "routes": ROUTES}
    mask = batch["attention_mask"]
    first = generate(model, batch["input_ids"], attention_mask=mask, past_key_values=cache, **given)
    longer = torch.cat([batch["input_ids"], first, TURN.repeat(4, 1)], dim=1)
    wider = torch.cat([mask, torch.ones(4, 10, dtype=torch.bool)], dim=1)
    wider[0, -2:] = False  # its second turn is shorter, so merging moves the whole row
    with pytest.raises(ValueError, match="are padded otherwise than those in past_key_values"):
        generate(model, longer, attention_mask=wider, past_key_values=cache, images=batch["images"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"do_sample": True, "num_return_sequences": 4},
        {"num_beams": 3, "num_return_sequences": 3},
        {"suppress_tokens": [17]},
        {"generation_config": GenerationConfig(suppress_tokens=[17])},
    ],
)
def test_the_routing_token_is_never_answered(tiny_llava, options):
    model = tiny_llava(*DPN, "preset=paper")[1].eval()
    batch = make_batch(WITH_ROUTER)
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"]}
    token = model.config.router_token_id
    with torch.no_grad():  # where it may be answered, it always is; the next likely id is 17
        model.model.norm.weight.zero_()
        model.lm_head = torch.nn.Linear(64, len(model.lm_head.weight))
        model.lm_head.bias[:] = 0
        model.lm_head.bias[token], model.lm_head.bias[17], model.lm_head.bias[18] = 30, 20, 10
    answers = generate(model, batch["input_ids"], **given, **options)
    is_suppressed = "suppress_tokens" in options or "generation_config" in options
    assert (answers == (18 if is_suppressed else 17)).any()
    assert not (answers == token).any()
    assert not is_suppressed or not (answers == 17).any()


def test_routes_of_the_wrong_shape_or_without_a_reduction_are_refused(model, tiny_llava):
    ids, given = of_row(0)
    for routes in (ROUTES[:2], ROUTES[:1, :2], ROUTES[:1] + 3, ROUTES[:1].float()):
        with pytest.raises(ValueError, match=r"routes must have the shape \(1, 3\), samples x DPE layers"):
            generate(model, ids, **{**given, "routes": routes})
        with pytest.raises(ValueError, match=r"routes must have the shape \(1, 3\), samples x DPE layers"):
            generate(model, TURN, routes=routes)
    with pytest.raises(ValueError, match=r"routes are given, but .* no reduction"):
        generate(tiny_llava()[1].eval(), ids, **given)


def test_the_prompts_of_these_tests_take_different_answers_by_route(model):
    answers = {
        tuple(generate(model, of_row(0)[0], images=make_images(1), routes=ROUTES[k : k + 1])[0].tolist())
        for k in range(4)
    }
    assert len(answers) == 4
    assert len(PROMPTS) == len(ROUTES)
