"""Merging images into prompts: where ours differs from the original on purpose, and where it mustn't."""

import importlib
import logging
import sys

import pytest
import torch
from transformers.utils import logging as transformers_logging

from llava.model.multimodal import Prompts
from tests.llava.model.prompts import PROMPTS, alone, make_batch, make_images

GREEDY = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}


@pytest.fixture
def warnings_logged(caplog):
    """What transformers' loggers warn of, which don't propagate by themselves."""
    transformers_logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        yield caplog
    transformers_logging.disable_propagation()


def inputs_of(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask", "images")}


def test_rows_of_different_length_get_a_mask_although_none_was_given(tiny_llava):
    model = tiny_llava()[1].eval()
    ids = torch.tensor([[1, 45, -200, 46, 47, 48], [1, -200, -200, 51, 52, 53]])
    merged = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, make_images(3))
    assert merged[2].sum(1).tolist() == [21, 36]
    answers = model.generate(ids, images=make_images(3), **GREEDY)
    single = model.generate(ids[:1], images=make_images(3)[:1], **GREEDY)
    assert answers[0].tolist() == single[0].tolist()


def test_a_batch_padded_on_the_right_is_continued_at_every_prompts_own_end(tiny_llava):
    model = tiny_llava()[1].eval()
    assert model.config.tokenizer_padding_side == "right"
    answers = model.generate(**inputs_of(make_batch(side="right")), **GREEDY)
    for row in range(len(PROMPTS)):
        assert model.generate(**inputs_of(alone(row)), **GREEDY)[0].tolist() == answers[row].tolist()


def test_text_padded_on_the_right_is_continued_at_every_prompts_own_end(tiny_llava):
    model = tiny_llava()[1].eval()
    ids = torch.tensor([[1, 61, 62, 0, 0], [1, 71, 72, 73, 74]])
    answers = model.generate(ids, attention_mask=(ids != 0).long(), **GREEDY)
    assert answers[0].tolist() == model.generate(ids[:1, :3], **GREEDY)[0].tolist()
    assert answers[1].tolist() == model.generate(ids[1:], **GREEDY)[0].tolist()


def test_outside_training_the_tower_sees_only_pictures_that_are_shown(tiny_llava):
    model, seen = tiny_llava()[1], []
    model.model.vision_tower.register_forward_hook(lambda _, pixels, __: seen.append(len(pixels[0])))
    batch = make_batch(side="right")
    with_extra = {**batch, "images": torch.cat([batch["images"], make_images(2, seed=9)])}
    expected = model.eval()(**batch).logits
    assert torch.equal(model(**with_extra).logits, expected)
    model(**alone(2))
    assert seen == [4, 4]  # of 5 and 7 images; none for the row of text alone
    model.train()(**make_batch(side="right", answers=2))
    assert seen == [4, 4, 5]  # all ranks run all modules, whatever their rows show


def test_every_tag_takes_an_image_and_none_goes_to_another_row(tiny_llava):
    model = tiny_llava()[1].eval()
    ids = torch.tensor([[1, -200, 45, -200, 46], [1, -200, 45, 46, 47]])
    with pytest.raises(ValueError, match=r"row 1 of the batch needs 1 image\(s\).*only 0 of the 2 images"):
        model(input_ids=ids, images=make_images(2))


def test_images_are_counted_past_masked_tags():
    ids = torch.tensor([[-200, 1, -200], [1, 5, 6], [1, -200, -200]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [1, 1, 1]])
    prompts = Prompts.read(ids, mask, None)
    assert prompts.first_images(4).tolist() == [0, 1, 2]
    assert prompts.shown_images(5).tolist() == [True, False, True, True, False]
    with pytest.raises(ValueError, match="row 1 of the batch is empty"):
        Prompts.read(ids, torch.tensor([[1], [0], [1]]).expand(3, 3), None)


def test_a_prompt_cut_in_generation_is_reported(tiny_llava, warnings_logged):
    model = tiny_llava()[1].eval()
    model.config.tokenizer_model_max_length = 12
    batch = make_batch([PROMPTS[0]])
    merged = model.splice(batch["input_ids"], None, None, batch["images"], None, "left")
    assert merged.lengths == [12]
    assert merged.visual_counts == [10]  # the image is cut, too
    assert "a prompt of 21 tokens is cut to tokenizer_model_max_length=12" in warnings_logged.text


def test_a_cut_image_is_not_pooled(tiny_llava):
    model = tiny_llava("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")[1].eval()
    model.config.tokenizer_model_max_length = 12
    _, reports = model.generate_with_report(
        torch.tensor(PROMPTS[0][0])[None], images=make_images(1), routes=torch.full((1, 3), 2), **GREEDY
    )
    assert reports[0].visual_tokens_per_layer == (10,) * 4


def test_a_prompt_of_one_image_is_merged(tiny_llava):
    model = tiny_llava()[1].eval()
    output = model(input_ids=torch.tensor([[-200]]), images=make_images(1))
    assert output.logits.shape == (1, 16, 1000)
    assert model.generate(torch.tensor([[-200]]), images=make_images(1), **GREEDY).shape == (1, 4)


def test_a_step_behind_a_cache_may_carry_the_images_along(tiny_llava):
    model, batch = tiny_llava()[1].eval(), alone(0)
    images = batch["images"]
    cache = model(**inputs_of(batch), use_cache=True).past_key_values
    step = torch.tensor([[50]])
    logits = model(input_ids=step, images=images, past_key_values=cache).logits
    whole = torch.cat([batch["input_ids"], step], dim=1)
    torch.testing.assert_close(logits[:, -1], model(input_ids=whole, images=images).logits[:, -1])
    with pytest.raises(ValueError, match="can't be merged behind a filled cache"):
        model(input_ids=batch["input_ids"], images=images, past_key_values=cache)


def test_tags_without_images_and_images_without_ids_are_refused(tiny_llava):
    model = tiny_llava()[1].eval()
    with pytest.raises(ValueError, match=r"sentinel \(-200\), but images is None"):
        model(input_ids=torch.tensor([[1, -200, 5]]))
    with pytest.raises(ValueError, match="images go with input_ids"):
        model(images=make_images(1))


def test_lists_and_crops_merge_like_one_image_after_the_other(tiny_llava):
    model, ids = tiny_llava()[1].eval(), torch.tensor([[1, -200, 45], [1, -200, 46]])
    pictures = make_images(4)
    flat = model(input_ids=ids, images=pictures[:2]).logits
    assert torch.equal(model(input_ids=ids, images=list(pictures[:2])).logits, flat)
    crops = model(input_ids=ids, images=pictures.unflatten(0, (2, 2)))
    assert crops.logits.shape[1] == flat.shape[1] + 16
    as_list = model(input_ids=ids, images=[pictures[:2], pictures[2:]], image_sizes=[(9, 9)] * 2)
    assert torch.equal(as_list.logits, crops.logits)


def test_a_step_without_answers_weighs_nothing_and_evaluates_to_nan(tiny_llava):
    model = tiny_llava()[1].train()
    batch = make_batch(side="right")
    output = model(**batch)
    output.loss.backward()
    assert output.loss == 0
    assert all(item.grad.isfinite().all() for item in model.parameters() if item.grad is not None)
    assert model.eval()(**batch).loss.isnan()


def test_a_failing_import_is_not_swallowed(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "llava"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "dpn.build", None)  # imports as if it weren't there
    package = importlib.import_module("llava.model")
    with pytest.raises(ImportError, match=r"dpn\.build"):
        _ = package.LlavaLlamaForCausalLM
