"""Every sample once, one modality per megabatch, balanced chunks, and an order of (seed, epoch) alone."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava.data.sampler import ModalityLengthSampler, split_to_even_chunks


@pytest.fixture(scope="module")
def reference(golden):
    return json.loads((golden / "misc/sampler.json").read_text())


def blocks(order, size):
    return [order[start : start + size] for start in range(0, len(order), size)]


def test_chunks_equal_the_originals(reference):
    facts = reference["split_to_even_chunks"]
    assert len(facts) == 6
    for fact in facts:
        assert split_to_even_chunks(fact["indices"], fact["lengths"], fact["num_chunks"]) == fact["chunks"]


@given(
    lengths=st.lists(st.integers(-50, 50), min_size=1, max_size=60),
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_every_sample_comes_once_and_full_megabatches_have_one_modality(
    lengths, batch_size, world_size, epoch
):
    sampler = ModalityLengthSampler(lengths, batch_size, world_size)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths))) == list(range(len(sampler)))
    size = batch_size * world_size
    num_full = sum(lengths_of // size for lengths_of in count_modalities(lengths))
    for start in range(0, num_full * size, size):
        assert len({lengths[index] > 0 for index in order[start : start + size]}) == 1


def count_modalities(lengths):
    num_images = sum(length > 0 for length in lengths)
    return num_images, len(lengths) - num_images


def test_megabatches_are_dealt_as_the_originals(reference):
    """Every full megabatch of one modality in the original's orders has the lengths that ours would deal."""
    num_compared = 0
    for fact in reference["sampler"]:
        lengths, size = fact["lengths"], fact["batch_size"] * fact["world_size"]
        if not fact["group_by_modality"]:
            lengths = [abs(length) for length in lengths]
        for megabatch in blocks(fact["first_epoch"], size) + blocks(fact["second_epoch"], size):
            dealt = [lengths[index] for index in megabatch]
            if len(megabatch) < size or len({length > 0 for length in dealt}) > 1 or dealt[0] < 0:
                continue
            longest_first = sorted(dealt, reverse=True)
            chunks = split_to_even_chunks(range(size), longest_first, fact["world_size"])
            assert [longest_first[place] for chunk in chunks for place in chunk] == dealt
            num_compared += 1
    assert num_compared > 200


def test_an_epoch_has_as_many_megabatches_of_each_modality_as_the_originals(reference):
    for fact in (fact for fact in reference["sampler"] if fact["group_by_modality"]):
        lengths, size = fact["lengths"], fact["batch_size"] * fact["world_size"]
        order = list(ModalityLengthSampler(lengths, fact["batch_size"], fact["world_size"]))
        assert len(order) == fact["len"]
        assert sorted(order) == sorted(fact["first_epoch"])

        def pure(order, lengths=lengths, size=size):
            groups = [{lengths[index] > 0 for index in block} for block in blocks(order, size)]
            return sum(len(group) == 1 for group in groups)

        # the original mixes both modalities' last megabatches even if they are full
        assert pure(order) >= pure(fact["first_epoch"])


def test_full_tails_are_not_mixed():
    lengths = [5] * 64 + [-5] * 32
    order = list(ModalityLengthSampler(lengths, 4, 4))
    assert all(len({lengths[i] > 0 for i in order[start : start + 16]}) == 1 for start in range(0, 96, 16))


def test_text_only_chunks_are_balanced():
    lengths = [-length for length in range(1, 101)]
    order = list(ModalityLengthSampler(lengths, 25, 4))
    totals = [sum(lengths[index] for index in order[start : start + 25]) for start in range(0, 100, 25)]
    assert max(totals) - min(totals) <= 4


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(1, 41))

    def order_of(seed, epoch, noise):
        torch.manual_seed(noise)
        sampler = ModalityLengthSampler(lengths, 2, 2, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order_of(0, 1, noise=3) == order_of(0, 1, noise=4)
    assert len({tuple(order_of(seed, epoch, noise=0)) for seed in range(3) for epoch in range(3)}) == 9


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(ModalityLengthSampler([3, -2, 0, 5], 1, 1))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([], 1, 1), "lengths is empty"), (([1], 0, 1), "must be at least 1, got 0 and 1")],
)
def test_impossible_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModalityLengthSampler(*arguments)
