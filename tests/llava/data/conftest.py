"""Reference data and tokenizers for the data tests."""

import gzip
import json
from functools import cache

import pytest
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava.model.tokenizer import load_tokenizer
from tests.golden_data import case_folder, golden_root

TRAIN_DATA = case_folder("train_data")
ORIGINAL_LIMIT = 256
"""The model_max_length of the reference data."""


@pytest.fixture(scope="session")
def golden():
    """Return the folder of the reference cases: train_data/, misc/."""
    return TRAIN_DATA.parent


@pytest.fixture(scope="session")
def tokenizer_of():
    """Return a tokenizer by the name that the reference data use."""
    folders = {
        "slow_legacy": "tok_slow_legacy",
        "slow_nonlegacy": "tok_slow_nonlegacy",
        "fast": "tok_fast",
        "fast_legacy_attr_true": "tok_fast",
        "chatml_slow_legacy": "tok_chatml_legacy",
        "chatml_slow_nonlegacy": "tok_chatml_nonlegacy",
    }
    return cache(
        lambda name: load_tokenizer(golden_root() / "common" / folders[name], model_max_length=ORIGINAL_LIMIT)
    )


@pytest.fixture(scope="session")
def tokenizer(tokenizer_of):
    return tokenizer_of("slow_nonlegacy")


@pytest.fixture(scope="session")
def cases():
    """Return the conversations of the reference data by name."""
    return {case["name"]: case for case in json.loads((TRAIN_DATA / "conversations.json").read_text())}


@pytest.fixture(scope="session")
def expected_encodings():
    """Return what the original made of each conversation, per version and tokenizer."""
    with gzip.open(TRAIN_DATA / "preprocess.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="session")
def image_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


@pytest.fixture
def human():
    return lambda text: {"from": "human", "value": text}


@pytest.fixture
def gpt():
    return lambda text: {"from": "gpt", "value": text}
