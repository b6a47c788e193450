"""Properties of the pyramid over random batches: grids, images, text, padding sides, kernels and routes."""

import itertools
import math
from functools import cache as memoised

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache

from dpn.cache import lengths
from dpn.experts import GridPool
from dpn.layout import Layout
from tests.dpn.pyramids import GRID, NUM_LAYERS, make_batch, make_config, make_model, make_sample

STAGES = (1, 1, 2, 1)
"""Layers of every stage of `make_config`'s pyramid."""
ROUTES = list(itertools.product(range(3), repeat=3))
KERNELS = ((1, 1), (1, 2), (2, 2))

grids = st.tuples(st.integers(1, 5), st.integers(1, 5))
prompts = st.builds(
    make_sample,
    before=st.integers(0, 4),
    grids=st.lists(grids, max_size=3),
    after=st.integers(2, 5),
    seed=st.integers(0, 99),
)
sides = st.sampled_from(["left", "right"])
variants = st.fixed_dictionaries(
    {
        "position_mode": st.sampled_from(["renumber", "keep"]),
        "pooling": st.sampled_from(["max", "avg"]),
        "gate": st.sampled_from(["none", "probability"]),
        "router_source": st.sampled_from(["last", "token", "both"]),
        "edge": st.sampled_from(["ceil", "floor"]),
    }
)
routed_batches = st.lists(st.tuples(prompts, st.sampled_from(ROUTES)), min_size=1, max_size=16)
quick = settings(max_examples=40, deadline=None, derandomize=True)


@memoised
def model_of(**fields):
    return make_model(make_config(**fields))


def expected_counts(grids_of_sample, route, edge="ceil"):
    """Visual tokens of a sample in every stage, by arithmetic on its grids."""
    counts, now = [sum(map(math.prod, grids_of_sample))], list(grids_of_sample)
    for choice in route:
        h, w = KERNELS[choice]
        up = 0 if edge == "floor" else 1
        now = [((rows + up * (h - 1)) // h, (columns + up * (w - 1)) // w) for rows, columns in now]
        counts.append(sum(map(math.prod, now)))
    return counts


def split(output):
    return output.last_hidden_state[0].split(output.layout.lengths)


@quick
@given(batch=routed_batches, side=sides, fields=variants)
def test_a_batch_of_mixed_routes_equals_every_sample_alone(batch, side, fields):
    promises = [expected_counts(own, route, fields["edge"]) for (_, _, own), route in batch]
    assume(all(promised[-1] or not promised[0] for promised in promises))  # nothing left is refused
    model = model_of(**fields)
    samples, routes = [sample for sample, _ in batch], torch.tensor([route for _, route in batch])
    with torch.no_grad():
        together = model(**make_batch(samples, side), routes=routes)
        for row, sample in enumerate(samples):
            alone = model(**make_batch([sample]), routes=routes[row : row + 1])
            torch.testing.assert_close(split(together)[row], alone.last_hidden_state[0], atol=3e-5, rtol=1e-4)
            assert together.routing.route_names(row) == alone.routing.route_names(0)


@quick
@given(batch=routed_batches, fields=variants)
def test_every_stage_holds_the_tokens_that_its_route_promises(batch, fields):
    routes = torch.tensor([route for _, route in batch])
    samples = [sample for sample, _ in batch]
    promises = [expected_counts(own, route, fields["edge"]) for (_, _, own), route in batch]
    assume(all(promised[-1] or not promised[0] for promised in promises))  # nothing left is refused
    with torch.no_grad():
        routing = model_of(**fields)(**make_batch(samples), routes=routes).routing
    for row, promised in enumerate(promises):
        assert [int(counts[row]) for counts in routing.visual_counts] == promised
        text = len(samples[row][0]) - promised[0]
        assert [int(counts[row]) for counts in routing.token_counts] == [text + count for count in promised]


@quick
@given(batch=routed_batches, side=sides, mode=st.sampled_from(["renumber", "keep"]), steps=st.integers(1, 3))
def test_decoding_behind_a_cache_equals_recomputing_and_the_cache_is_as_long_as_promised(
    batch, side, mode, steps
):
    model = model_of(position_mode=mode)
    samples, routes = [sample for sample, _ in batch], torch.tensor([route for _, route in batch])
    arguments, cache = make_batch(samples, side), DynamicCache()
    new = torch.randn(len(batch), steps, 32, generator=torch.Generator().manual_seed(len(batch)))
    with torch.no_grad():
        model(**arguments, routes=routes, past_key_values=cache)
        counts = [expected_counts(own, route) for (_, _, own), route in batch]
        text = [len(types) - own[0] for (types, _, _), own in zip(samples, counts, strict=True)]
        stages = [
            max(own[stage] + words for own, words in zip(counts, text, strict=True)) for stage in range(4)
        ]
        assert lengths(cache) == list(np.repeat(stages, STAGES))
        mask = arguments["attention_mask"]
        for step in range(steps):
            mask = torch.cat([mask, mask.new_ones(len(batch), 1)], dim=1)
            cached = model(inputs_embeds=new[:, step : step + 1], attention_mask=mask, past_key_values=cache)
        assert lengths(cache) == list(np.repeat(stages, STAGES) + steps)
        longer = [
            (types + [0] * steps, torch.cat([embeds, new[row]]), own)
            for row, (types, embeds, own) in enumerate(samples)
        ]
        recomputed = split(model(**make_batch(longer), routes=routes))
    for row in range(len(batch)):
        torch.testing.assert_close(
            cached.last_hidden_state[row, -1], recomputed[row][-1], atol=5e-5, rtol=1e-4
        )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("chosen", [ROUTES[:16], ROUTES[11:]], ids=["first 16 routes", "last 16 routes"])
def test_all_27_routes_in_batches_of_16_equal_every_sample_alone(chosen, side):
    kinds = ([GRID], [GRID, GRID], [], [(2, 4), (4, 4), (3, 3)])
    samples = [make_sample(1 + row % 4, kinds[row % 4], 2 + row % 3, seed=row) for row in range(16)]
    model, routes = model_of(), torch.tensor(chosen)
    with torch.no_grad():
        together = split(model(**make_batch(samples, side), routes=routes))
        for row, sample in enumerate(samples):
            alone = model(**make_batch([sample]), routes=routes[row : row + 1]).last_hidden_state[0]
            torch.testing.assert_close(together[row], alone, atol=3e-5, rtol=1e-4)


@quick
@given(batch=st.lists(prompts, min_size=1, max_size=6), data=st.data())
def test_pooling_plans_use_every_row_once_and_never_mix_text_images_or_samples(batch, data):
    arguments = make_batch(batch)
    layout = Layout.from_padded(
        *(arguments[name] for name in ("mm_token_type_ids", "attention_mask", "visual_grids"))
    )
    kernels = data.draw(
        st.lists(
            st.sampled_from(((1, 1), (1, 2), (2, 1), (2, 2), (4, 4))),
            min_size=len(batch),
            max_size=len(batch),
        )
    )
    source, pooled = layout.pool([GridPool(kernel) for kernel in kernels])
    owner = np.arange(-1, -1 - len(layout.origin), -1)  # every text row is its own
    for number, span in enumerate(layout.spans):
        owner[span.start : span.start + span.length] = number
    windows = [sorted(set(window.tolist())) for window in source]
    assert all(len({owner[row] for row in window} | {layout.samples[window[0]]}) <= 2 for window in windows)
    assert sorted(itertools.chain(*windows)) == list(range(len(layout.origin)))
    assert all(len({int(owner[row]) for row in window}) == 1 for window in windows)
    assert [window[0] for window in windows] == sorted(window[0] for window in windows)
    assert sum(pooled.lengths) == len(source)
    assert pooled.samples.tolist() == layout.samples[source[:, 0]].tolist()


@quick
@given(grid=grids, kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), seed=st.integers(0, 99))
def test_a_pooled_cell_is_the_maximum_of_its_square_of_the_image(grid, kernel, seed):
    image = np.random.default_rng(seed).normal(size=grid)
    windows = GridPool(kernel).windows(grid)
    squares = [
        image[top : top + kernel[0], left : left + kernel[1]].max()
        for top in range(0, grid[0], kernel[0])
        for left in range(0, grid[1], kernel[1])
    ]
    assert image.reshape(-1)[windows].max(1).tolist() == squares


def test_the_stages_of_these_tests_are_those_of_the_model():
    assert sum(STAGES) == NUM_LAYERS
    assert [high - low for low, high in model_of().stages] == list(STAGES)
