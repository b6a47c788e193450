"""Batches: padding, text-only rows, several images, lists, 5-D, truncation equal the original LLaVA-1.5."""

import pytest
import torch

from tests.llava.model.golden import BEAMS, OPTIONS, TOLERANCE, arrays, index, load, until_end

CASES = sorted(index("batch"))
GENERATED = [name for name in CASES if "greedy_ids" in arrays("batch", name)]
close = torch.testing.assert_close


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load("llava-tiny", tmp_path_factory.mktemp("golden") / "model")[0]


@pytest.fixture
def model_of(loaded, monkeypatch):
    """A function that gives the model with the configuration of a case."""

    def configure(case):
        side, length = case["padding_side_config"], case["tokenizer_model_max_length"]
        monkeypatch.setattr(loaded.config, "tokenizer_padding_side", side)
        monkeypatch.setattr(loaded.config, "tokenizer_model_max_length", length)
        return loaded

    return configure


def images_of(case):
    """The pictures that were passed, as one tensor, as a list, or with a crop axis."""
    samples = arrays("batch", "samples")

    def picture(name):
        if name in ("zeros", "ones"):
            return torch.full((3, 56, 56), float(name == "ones"))
        sample, number = name.split("_")
        return samples[f"{sample}_pixel_values"][int(number)]

    def pictures(names):
        return [picture(name) if isinstance(name, str) else torch.stack(pictures(name)) for name in names]

    images, is_list = pictures(case["image_order"]), isinstance(case["images_shape"][0], list)
    return images if is_list else torch.stack(images)


def batch_of(case, data):
    return {
        "attention_mask": data.get("attention_mask_in"),
        "position_ids": data.get("position_ids_in"),
        "images": images_of(case),
    }


def is_portable(case):
    """Which rows the original continues right: not those that it padded on the right."""
    lengths, is_left = case["merged_lengths"], case["padding_side_config"] == "left"
    return [is_left or length == max(lengths) for length in lengths]


@pytest.mark.parametrize("name", CASES)
def test_merged_batches_equal_the_originals(model_of, name):
    case, data = index("batch")[name], arrays("batch", name)
    model, ids = model_of(case), data["input_ids"]
    batch = batch_of(case, data)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    given = (ids, positions, batch["attention_mask"], None, data["labels_in"], batch["images"])
    _, merged_positions, mask, _, embeds, labels = model.prepare_inputs_labels_for_multimodal(*given)
    assert torch.equal(merged_positions, data["merged_position_ids_if_given"])
    assert torch.equal(labels, data["merged_labels"])
    if case["returned_attention_mask_is_none"]:
        assert mask is None
    else:
        assert mask.dtype == data["merged_attention_mask"].dtype
        assert torch.equal(mask, data["merged_attention_mask"])
    if "merged_inputs_embeds" in data:
        close(embeds, data["merged_inputs_embeds"], **TOLERANCE)
    without = model.prepare_inputs_labels_for_multimodal(ids, None, *given[2:4], None, given[5])
    assert without[1] is without[5] is None


@pytest.mark.parametrize("name", CASES)
def test_logits_and_loss_of_a_batch_equal_the_originals(model_of, name):
    case, data = index("batch")[name], arrays("batch", name)
    output = model_of(case)(
        input_ids=data["input_ids"],
        labels=data["labels_in"],
        output_hidden_states=True,
        **batch_of(case, data),
    )
    rows = torch.arange(len(data["input_ids"]))
    close(output.logits[rows, data["last_valid_index"]], data["logits_last_valid"], **TOLERANCE)
    close(output.loss, data["loss"], **TOLERANCE)
    if "last_hidden" in data:
        real = data.get("merged_attention_mask", torch.ones(output.logits.shape[:2])).bool()
        close(output.hidden_states[-1][real], data["last_hidden"][real], **TOLERANCE)


@pytest.mark.parametrize("name", GENERATED)
def test_answers_of_a_batch_equal_the_originals(model_of, name):
    case, data = index("batch")[name], arrays("batch", name)
    model, batch = model_of(case), batch_of(case, data)
    several, one = case["eos_token_id_override"], case["beam_single_eos"]
    runs = [
        ("greedy_ids", {}, (2,)),
        ("greedy_eos_ids", {"eos_token_id": several}, several),
        ("beam3_ids", BEAMS, (2,)),
        ("beam3_eos_ids", {"eos_token_id": several, **BEAMS}, several),
        ("beam3_eos1_ids", {"eos_token_id": one, **BEAMS}, (one,)),
    ]
    for key, options, ends in runs:
        output = model.generate(data["input_ids"], **batch, **OPTIONS, **options)
        ids = output if isinstance(output, torch.Tensor) else output.sequences
        compared = [row for row, portable in enumerate(is_portable(case)) if portable]
        for row in compared:
            assert until_end(ids[row], ends) == until_end(data[key][row], ends), (key, row)
        if options.get("num_beams"):
            expected = data[key.replace("ids", "scores")]
            close(output.sequences_scores[compared], expected[compared], atol=1e-5, rtol=0)


def test_some_batches_are_there():
    assert {"b01_right_mixed", "b02_left_mixed"} <= set(CASES)
