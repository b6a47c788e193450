"""Batches equal the original's; a real token that happens to be the pad token stays visible."""

import logging

import numpy as np
import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.collator import LlavaCollator
from llava.data.dataset import LlavaDataset
from llava.data.records import read_records


def sample(ids, labels=None, shape=(3, 2, 2)):
    ids = torch.tensor(ids)
    return {
        "id": "s1",
        "source": 0,
        "input_ids": ids,
        "labels": ids if labels is None else torch.tensor(labels),
        "image": torch.zeros(shape),
    }


@pytest.mark.parametrize("limit", [256, 60])
@pytest.mark.parametrize("name", ["slow_legacy", "slow_nonlegacy"])
def test_batches_equal_the_originals(golden, tokenizer_of, image_processor, name, limit):
    folder = golden / "train_data/dataset"
    dataset = LlavaDataset(
        read_records(folder / "data.json"),
        tokenizer_of(name),
        image_processor,
        version="v1",
        image_folder=folder / "images",
    )
    batch = LlavaCollator(0, limit)([dataset[index] for index in range(len(dataset))])
    expected = np.load(golden / "train_data/dataset_batches.npz")
    for key in ("input_ids", "labels", "attention_mask"):
        assert np.array_equal(batch[key], expected[f"v1.{name}.max{limit}.{key}"]), key
    assert batch["images"].shape == (6, 3, 56, 56)


@pytest.mark.parametrize("aspect_ratio", ["pad", "square"])
def test_pixels_of_a_batch_equal_the_originals(golden, tokenizer, image_processor, aspect_ratio):
    folder = golden / "train_data/dataset"
    dataset = LlavaDataset(
        read_records(folder / "data.json"),
        tokenizer,
        image_processor,
        version="v1",
        image_folder=folder / "images",
        image_aspect_ratio=aspect_ratio,
    )
    expected = torch.from_numpy(np.load(folder.parent / "dataset_batches.npz")[f"images.{aspect_ratio}"])
    images = LlavaCollator(0, 256)([dataset[index] for index in range(len(expected))])["images"]
    torch.testing.assert_close(images, expected, atol=1e-6, rtol=0)


def test_caption_batches_equal_the_originals(golden, tokenizer, image_processor):
    folder = golden / "train_data/dataset"
    records = read_records(folder / "data_plain.json")
    dataset = LlavaDataset(
        records, tokenizer, image_processor, version="plain", image_folder=folder / "images"
    )
    batch = LlavaCollator(0, 256)([dataset[index] for index in range(len(dataset))])
    expected = np.load(golden / "train_data/dataset_batches.npz")
    for key in ("input_ids", "labels", "attention_mask"):
        assert np.array_equal(batch[key], expected[f"plain.slow_nonlegacy.{key}"]), key


def test_the_mask_comes_from_lengths():
    batch = LlavaCollator(0, 10)([sample([1, 0, 5]), sample([1])])
    assert batch["input_ids"].tolist() == [[1, 0, 5], [1, 0, 0]]
    assert batch["attention_mask"].tolist() == [[True, True, True], [True, False, False]]
    assert batch["labels"].tolist() == [[1, 0, 5], [1, IGNORE_INDEX, IGNORE_INDEX]]


def test_a_batch_is_as_long_as_its_longest_cut_sample():
    batch = LlavaCollator(0, 2)([sample([1, 2, 3]), sample([4])])
    assert batch["input_ids"].tolist() == [[1, 2], [4, 0]]


def test_a_sample_whose_answers_are_all_cut_is_logged_by_its_id(caplog):
    with caplog.at_level(logging.WARNING):
        batch = LlavaCollator(0, 2)([sample([1, 2, 3], [IGNORE_INDEX, IGNORE_INDEX, 3]), sample([4, 5, 6])])
    assert (batch["labels"][0] == IGNORE_INDEX).all()
    (record,) = caplog.records
    assert "sample s1: all 1 tokens to learn lie behind model_max_length 2" in record.getMessage()


@pytest.mark.parametrize(("limit", "kept"), [(9, 5), (8, 5), (7, 4), (6, 3), (5, 2), (2, 2), (1, 1)])
def test_an_image_counts_as_its_visual_tokens(limit, kept):
    ids = [1, IMAGE_TOKEN_INDEX, 5, 6, 7]  # 1 + 4 + 3 tokens in the model
    labels = [IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 6, 7]
    batch = LlavaCollator(0, limit, tokens_per_image=4)([sample(ids, labels)])
    assert batch["input_ids"].tolist() == [ids[:kept]]
    assert batch["labels"].tolist() == [labels[:kept]]


def test_a_sample_whose_image_pushes_all_answers_behind_the_cut_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        batch = LlavaCollator(0, 5, tokens_per_image=5)([sample([IMAGE_TOKEN_INDEX, 3], [IGNORE_INDEX, 3])])
    assert batch["input_ids"].tolist() == [[IMAGE_TOKEN_INDEX]]
    assert "sample s1: all 1 tokens to learn lie behind model_max_length 5" in caplog.text
    assert "it has 6 tokens, 5 of them for each image" in caplog.text


def test_images_of_several_shapes_stay_a_list():
    batch = LlavaCollator(0, 9)([sample([1]), sample([2], shape=(2, 3, 2, 2))])
    assert [image.shape for image in batch["images"]] == [(3, 2, 2), (2, 3, 2, 2)]


def test_a_length_below_one_is_refused():
    with pytest.raises(ValueError, match="model_max_length must be at least 1, got 0"):
        LlavaCollator(0, 0)
