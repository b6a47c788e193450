"""Samples equal the original's; whatever is wrong with one is said with its id."""

import json
import shutil

import pytest
import torch

from llava.constants import IGNORE_INDEX
from llava.data.dataset import LlavaDataset
from llava.data.records import Record, read_records
from llava.model.tokenizer import load_tokenizer
from tests.golden_data import golden_root


@pytest.fixture(scope="module")
def facts(golden):
    return json.loads((golden / "train_data/dataset_meta.json").read_text())


@pytest.fixture
def dataset_of(golden, tokenizer, image_processor):
    """Return the reference data set, with some arguments changed."""

    def build(file="data.json", **changes):
        arguments = {
            "version": "v1",
            "image_folder": golden / "train_data/dataset/images",
            "image_aspect_ratio": "pad",
            **changes,
        }
        records = arguments.pop("records", None) or read_records(golden / "train_data/dataset" / file)
        used = arguments.pop("tokenizer", tokenizer)
        return LlavaDataset(records, used, image_processor, **arguments)

    return build


@pytest.fixture
def tokenizer_with_router(golden):
    tokenizer = load_tokenizer(golden_root() / "common/tok_slow_nonlegacy")
    tokenizer.add_tokens(["<R>"], special_tokens=True)
    return tokenizer


@pytest.mark.parametrize("name", ["slow_legacy", "slow_nonlegacy"])
def test_lengths_equal_the_originals(dataset_of, facts, tokenizer_of, name):
    dataset = dataset_of(tokenizer=tokenizer_of(name))
    assert dataset.modality_lengths == facts["modality_lengths"]
    assert [len(sample["input_ids"]) for sample in dataset] == facts[f"item_lengths.{name}"]


def test_captions_have_the_originals_lengths(dataset_of, facts):
    dataset = dataset_of("data_plain.json", version="plain")
    assert dataset.modality_lengths == facts["plain_modality_lengths"]
    assert len(dataset) == 4


def test_a_text_only_sample_brings_an_image_of_zeros(dataset_of):
    torch.testing.assert_close(dataset_of()[2]["image"], torch.zeros(3, 56, 56), atol=0, rtol=0)


@pytest.mark.parametrize(("placement", "count"), [("first_turn", 1), ("every_turn", 3)])
def test_the_routing_token_ends_questions_about_images(dataset_of, tokenizer_with_router, placement, count):
    dataset = dataset_of(tokenizer=tokenizer_with_router, routing_token="<R>", routing_placement=placement)
    router = tokenizer_with_router.convert_tokens_to_ids("<R>")
    ids = dataset[4]["input_ids"]  # three questions about an image
    assert (ids == router).sum() == count
    assert "Who is there?<R> ASSISTANT: A doctor." in tokenizer_with_router.decode(ids[ids >= 0])
    assert (dataset[4]["labels"] != router).all()
    assert not (dataset[2]["input_ids"] == router).any()  # text only


def test_the_routing_token_ends_a_question_whose_image_came_last(dataset_of, tokenizer_with_router):
    dataset = dataset_of(tokenizer=tokenizer_with_router, routing_token="<R>")
    ids = dataset[1]["input_ids"]
    text = tokenizer_with_router.decode(ids[ids >= 0])
    assert "Describe the kitchen in a short sentence.<R> ASSISTANT:" in text


def test_a_routing_token_that_the_tokenizer_lacks_is_refused(dataset_of):
    with pytest.raises(ValueError, match="the tokenizer has no token <R>"):
        dataset_of(routing_token="<R>")


def test_captions_have_no_place_for_a_routing_token(dataset_of, tokenizer_with_router):
    with pytest.raises(ValueError, match="version plain has no question that could end with <R>"):
        dataset_of("data_plain.json", version="plain", tokenizer=tokenizer_with_router, routing_token="<R>")


def test_images_are_wrapped_if_the_tokenizer_has_the_tokens(dataset_of, golden):
    tokenizer = load_tokenizer(golden_root() / "common/tok_slow_nonlegacy")
    tokenizer.add_tokens(["<im_start>", "<im_end>"], special_tokens=True)
    ids = dataset_of(tokenizer=tokenizer)[0]["input_ids"].tolist()
    place = ids.index(-200)
    assert tokenizer.convert_ids_to_tokens([ids[place - 1], ids[place + 1]]) == ["<im_start>", "<im_end>"]


@pytest.fixture
def record():
    conversations = ({"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."})
    return Record("s7", "a.png", conversations, "data.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, r"a\.png does not exist"), (b"\x89PNG\r\n broken", r"a\.png can't be read")],
)
def test_a_bad_image_is_named_with_its_sample(dataset_of, record, tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    dataset = dataset_of(records=[record], image_folder=tmp_path)
    with pytest.raises(ValueError, match=rf"data\.json, sample s7: image .*{message}"):
        dataset[0]


def test_a_half_written_image_is_refused(dataset_of, record, golden, tmp_path):
    shutil.copyfile(golden / "train_data/dataset/images/a.png", tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"sample s7: image .*a\.png can't be read"):
        dataset_of(records=[record], image_folder=tmp_path)[0]


def test_a_sample_without_an_answer_is_refused_before_training(dataset_of, record):
    silent = Record("s8", None, ({"from": "human", "value": "a"}, {"from": "gpt", "value": ""}), "data.json")
    with pytest.raises(ValueError, match=r"data\.json: 1 of 2 .*\n  sample s8: every gpt message is empty"):
        dataset_of(records=[record, silent])


def test_a_dataset_needs_records(golden, tokenizer, image_processor):
    with pytest.raises(ValueError, match="the dataset is empty"):
        LlavaDataset([], tokenizer, image_processor, version="v1", image_folder=golden)


def test_an_aspect_ratio_that_training_does_not_know_is_refused(dataset_of):
    with pytest.raises(ValueError, match=r"image_aspect_ratio must be one of .* got 'anyres'"):
        dataset_of(image_aspect_ratio="anyres")


def test_every_sample_has_something_to_learn(dataset_of):
    assert all((sample["labels"] != IGNORE_INDEX).any() for sample in dataset_of())
