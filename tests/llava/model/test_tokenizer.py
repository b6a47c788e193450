"""Ids equal those of the sentencepiece tokenizer that LLaVA was trained with, before and after saving."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer

from llava.model.tokenizer import load_tokenizer

GOLDEN = Path(__file__).parents[2] / "golden" / "llava"
FOLDERS = {
    "slow_legacy": "tok_slow_legacy",
    "slow_nonlegacy": "tok_slow_nonlegacy",
    "fast": "tok_fast",
    "chatml_slow_legacy": "tok_chatml_legacy",
}
FACTS = json.loads((GOLDEN / "train_data/tokenizer_image_token.json").read_text())
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
TEXTS = st.lists(
    st.sampled_from([" ", "  ", "▁", "\n", "the cat", "12", ".", "é", "猫", "😀", "USER:", *SPECIAL])
).map("".join)


@cache
def tokenizer_of(name):
    return load_tokenizer(GOLDEN / "common" / FOLDERS[name])


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_equal_the_originals(name):
    for fact in (fact for fact in FACTS if fact["tokenizer"] == name):
        assert tokenizer_of(name)(fact["prompt"]).input_ids == fact["plain_ids"], fact["prompt"]


@pytest.mark.parametrize("name", ["slow_nonlegacy", "fast"])
def test_decoding_equals_the_originals(name):
    for fact in (fact for fact in FACTS if fact["tokenizer"] == name):
        text = tokenizer_of(name).decode(fact["plain_ids"], skip_special_tokens=True)
        assert text == fact["decode_skip_special"]


@given(text=TEXTS)
def test_legacy_ids_are_those_of_sentencepiece_for_each_text_between_special_tokens(text):
    model = SentencePieceProcessor(model_file=str(GOLDEN / "common/tok_slow_legacy/tokenizer.model"))
    expected = [1]
    for piece in re.split("(<unk>|<s>|</s>)", text):
        expected += [SPECIAL[piece]] if piece in SPECIAL else model.encode(piece)
    assert tokenizer_of("slow_legacy")(text).input_ids == expected


@given(text=TEXTS)
def test_the_first_text_has_the_same_ids_whatever_legacy_is(text):
    first = re.split("<unk>|<s>|</s>", text)[0]
    assert tokenizer_of("slow_nonlegacy")(first).input_ids == tokenizer_of("slow_legacy")(first).input_ids


@pytest.mark.parametrize("name", FOLDERS)
@given(text=TEXTS)
def test_offsets_point_into_the_text_as_given(name, text):
    encoding = tokenizer_of(name)(text, return_offsets_mapping=True)
    spans = encoding["offset_mapping"][1:]
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert {index for start, end in spans for index in range(start, end)} == set(range(len(text)))


def test_a_batch_has_the_ids_of_its_texts():
    tokenizer = tokenizer_of("slow_nonlegacy")
    texts = [" hi", "the cat", "", "</s> hi"]
    assert tokenizer(texts).input_ids == [tokenizer(text).input_ids for text in texts]
    assert tokenizer.encode(" hi") == tokenizer(" hi").input_ids


@pytest.mark.parametrize("name", FOLDERS)
def test_a_saved_tokenizer_comes_back_with_its_added_tokens(name, tmp_path):
    tokenizer = load_tokenizer(GOLDEN / "common" / FOLDERS[name], model_max_length=77)
    size = len(tokenizer)
    assert tokenizer.add_tokens(["<ROUTER>"], special_tokens=True) == 1
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.convert_tokens_to_ids("<ROUTER>") == size == len(loaded) - 1
    assert (loaded.legacy, loaded.model_max_length, loaded.padding_side) == (tokenizer.legacy, 77, "right")
    for text in [" hi<ROUTER> the cat</s> x", "What?<ROUTER> ASSISTANT: no</s>USER: why"]:
        assert loaded(text).input_ids == tokenizer(text).input_ids
        assert loaded.decode(loaded(text).input_ids) == tokenizer.decode(tokenizer(text).input_ids)


def test_a_saved_tokenizer_opens_in_plain_transformers(tmp_path):
    tokenizer_of("slow_legacy").save_pretrained(tmp_path)
    text = "What is it? ASSISTANT: A cat.</s>"
    assert (
        AutoTokenizer.from_pretrained(tmp_path)(text).input_ids == tokenizer_of("slow_legacy")(text).input_ids
    )
    assert (tmp_path / "tokenizer.model").is_file()


def test_a_missing_pad_token_becomes_the_unknown_token(tmp_path):
    for path in (GOLDEN / "common/tok_slow_nonlegacy").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        fields = json.loads((tmp_path / name).read_text())
        del fields["pad_token"]
        (tmp_path / name).write_text(json.dumps(fields))
    tokenizer = load_tokenizer(tmp_path, padding_side="left")
    assert (tokenizer.pad_token, tokenizer.pad_token_id, tokenizer.padding_side) == ("<unk>", 0, "left")


def test_a_sentencepiece_tokenizer_that_does_not_say_legacy_is_legacy(tmp_path):
    for path in (GOLDEN / "common/tok_slow_legacy").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    fields = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del fields["legacy"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    text = "a</s>USER: b"
    assert load_tokenizer(tmp_path)(text).input_ids == tokenizer_of("slow_legacy")(text).input_ids
    assert tokenizer_of("slow_legacy")(text).input_ids != tokenizer_of("slow_nonlegacy")(text).input_ids


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no vocabulary: copy tokenizer\.model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("path", ["typo", "./typo", "/no/such/folder", "a/b/c"])
def test_a_path_that_is_not_there_is_refused_without_asking_the_hub(monkeypatch, path):
    monkeypatch.setattr(transformers.utils.hub, "cached_file", None)
    with pytest.raises(ValueError, match=rf"no tokenizer at {path}: no such directory"):
        load_tokenizer(path)


def test_use_fast_is_taken_and_changes_nothing():
    folder, text = GOLDEN / "common/tok_slow_legacy", "a</s> b"
    ids = [load_tokenizer(folder, use_fast=value)(text).input_ids for value in (False, True, None)]
    assert ids == [tokenizer_of("slow_legacy")(text).input_ids] * 3
