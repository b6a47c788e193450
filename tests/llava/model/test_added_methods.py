"""docs/add_a_reducer.md, tried: a file and two rows are all that a new method needs."""

from pathlib import Path

import pytest
import torch

from dpn.build import REDUCERS, SELECTORS
from dpn.methods import METHODS
from llava.model.builder import load_pretrained_model
from llava.model.report import flops_ratios
from tests.dpn.baselines import stride
from tests.dpn.selectors import largest
from tests.dpn.selectors.cases import attended, crop_of
from tests.llava.model.prompts import PROMPTS, alone, make_batch

PAGE = Path(__file__).parents[3] / "docs" / "add_a_reducer.md"
GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
ADDED = {
    "stride layer=2 every=8": [16, 16, 2, 2],
    "largest amount=3": [3, 3, 3, 3],
}
"""Words of --reduction, and the visual tokens of one image in the four layers."""
each_method = pytest.mark.parametrize("words", ADDED)


@pytest.fixture(autouse=True)
def rows(monkeypatch):
    """The rows that the page says to add."""
    monkeypatch.setitem(METHODS, "stride", stride.StrideConfig)
    monkeypatch.setitem(REDUCERS, stride.StrideConfig, stride.Stride)
    monkeypatch.setitem(METHODS, "largest", largest.LargestConfig)
    monkeypatch.setitem(SELECTORS, largest.LargestConfig, largest.largest)


@pytest.fixture
def load(tiny_llava, tmp_path):
    """A function that loads a plain checkpoint with the words of --reduction."""
    tokenizer, model, _ = tiny_llava()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return lambda words: load_pretrained_model(str(tmp_path), None, device="cpu", reduction=words.split())[1]


def generate(model, batch):
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"], **GREEDY}
    return model.generate_with_report(batch["input_ids"], **given)


@each_method
def test_a_plain_checkpoint_runs_with_an_added_method(load, words):
    model = load(words)
    together, reports = generate(model, make_batch())
    for row, (_, images) in enumerate(PROMPTS):
        ids, [report] = generate(model, alone(row))
        assert torch.equal(ids[0], together[row])
        assert report == reports[row]
        assert list(report.visual_tokens_per_layer) == [images * count for count in ADDED[words]]
        assert (flops_ratios(report, model.config)["paper"] < 1) == bool(images)


def test_an_added_reducer_trains_and_an_added_selector_does_not(tiny_llava):
    model = tiny_llava("stride", "layer=1", "every=2")[1].train()
    model(**make_batch(side="right", answers=2)).loss.backward()
    assert model.model.mm_projector[0].weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="--reduction largest has nothing to learn"):
        tiny_llava("largest")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("stride layer=4", "a decoder with 4 layers: stride reduces tokens in front of layer 1 to 3"),
        ("stride layer=1 every=0", "every must be 1 or more, got 0"),
        ("largest amount=17", "amount=17 asks for 17 of the 16 features of a crop"),
        ("largets", "unknown reduction 'largets'; did you mean largest"),
    ],
)
def test_what_does_not_fit_is_refused_before_weights_are_loaded(load, words, message):
    with pytest.raises(ValueError, match=message):
        load(words)


def test_the_examples_selector_judges_every_crop_alone():
    config, seen = largest.LargestConfig(amount=5), attended(3)
    together = largest.largest(config, seen)
    alone_ = [largest.largest(config, crop_of(seen, index)).features for index in range(3)]
    assert torch.equal(together.features, torch.cat(alone_))


@pytest.mark.parametrize("example", [stride, largest])
def test_the_page_shows_these_very_files(example):
    assert Path(example.__file__).read_text() in PAGE.read_text()
