"""Reference data and tokenizers for the data tests."""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava.model.tokenizer import load_tokenizer

GOLDEN = Path(__file__).parents[2] / "golden" / "llava"


@pytest.fixture(scope="session")
def golden():
    """Return the folder of reference data."""
    return GOLDEN


@pytest.fixture(scope="session")
def tokenizer_of():
    """Return a tokenizer by the name that the reference data use."""
    folders = {
        "slow_legacy": "tok_slow_legacy",
        "slow_nonlegacy": "tok_slow_nonlegacy",
        "fast": "tok_fast",
        "fast_legacy_attr_true": "tok_fast",
        "chatml_slow_legacy": "tok_chatml_legacy",
    }
    return cache(lambda name: load_tokenizer(GOLDEN / "common" / folders[name]))


@pytest.fixture(scope="session")
def tokenizer(tokenizer_of):
    return tokenizer_of("slow_nonlegacy")


@pytest.fixture(scope="session")
def cases():
    """Return the conversations of the reference data by name."""
    return {case["name"]: case for case in json.loads((GOLDEN / "train_data/conversations.json").read_text())}


@pytest.fixture(scope="session")
def expected_encodings():
    """Return what the original made of each conversation, for the tokenizers that are stored here."""
    with gzip.open(GOLDEN / "train_data/preprocess.jsonl.gz", "rt") as file:
        records = [json.loads(line) for line in file]
    return [record for record in records if record["tokenizer"] != "chatml_slow_nonlegacy"]


@pytest.fixture(scope="session")
def image_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


@pytest.fixture
def human():
    return lambda text: {"from": "human", "value": text}


@pytest.fixture
def gpt():
    return lambda text: {"from": "gpt", "value": text}
