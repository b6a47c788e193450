"""Single prompts: every step equals the original LLaVA-1.5 on a tiny checkpoint (see tests/golden/llava)."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava.mm_utils import process_images, tokenizer_image_token
from llava.model.clip_states import hidden_states
from llava.model.reduction import VISUAL
from llava.model.tokenizer import load_tokenizer
from tests.golden_data import golden_root
from tests.llava.model.golden import BEAMS, OPTIONS, TOLERANCE, arrays, index, load

CASES = sorted(index("mm"))
WITH_IMAGES = [name for name in CASES if index("mm")[name]["n_images"]]
close = torch.testing.assert_close


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load("llava-tiny", tmp_path_factory.mktemp("golden") / "model")


@pytest.fixture(scope="module")
def model(loaded):
    return loaded[0]


def prompt_of(data):
    ids = data["input_ids"].reshape(1, -1)
    return {"attention_mask": torch.ones_like(ids), "images": data.get("pixel_values")}


@pytest.mark.parametrize("name", CASES)
def test_prompt_ids_equal_the_originals(name):
    case = index("mm")[name]
    tokenizer = load_tokenizer(golden_root() / "common" / case["tokenizer"])
    assert (
        tokenizer_image_token(case["prompt"], tokenizer) == arrays("mm", name)["input_ids"].flatten().tolist()
    )


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_pixels_features_and_visual_tokens_equal_the_originals(loaded, name):
    (model, processor), case, data = loaded, index("mm")[name], arrays("mm", name)
    images = [Image.fromarray(data[f"image_{number}"].numpy()) for number in range(case["n_images"])]
    config = SimpleNamespace(image_aspect_ratio=case["image_aspect_ratio"])
    close(process_images(images, processor, config), data["pixel_values"], atol=1e-6, rtol=0)
    tower = model.get_vision_tower()
    for number, state in enumerate(data.get("clip_hidden_states", [])):
        close(hidden_states(tower.vision_tower, data["pixel_values"], [number])[0], state, **TOLERANCE)
    close(tower(data["pixel_values"]), data["vision_features"], **TOLERANCE)
    close(model.encode_images(data["pixel_values"]), data["projected_features"], **TOLERANCE)


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_merged_sequences_equal_the_originals(model, name):
    data = arrays("mm", name)
    ids = data["input_ids"].reshape(1, -1)
    positions, mask = torch.arange(ids.shape[1])[None], torch.ones_like(ids)
    labels = data["labels_in"].reshape(1, -1)
    merged = model.prepare_inputs_labels_for_multimodal(
        ids, positions, mask, None, labels, data["pixel_values"]
    )
    assert merged[0] is merged[3] is None
    assert torch.equal(merged[1], data["merged_position_ids"])
    assert torch.equal(merged[2], data["merged_attention_mask"])
    if "merged_inputs_embeds" in data:
        close(merged[4], data["merged_inputs_embeds"], **TOLERANCE)
    assert torch.equal(merged[5], data["merged_labels"])
    starts = index("mm")[name]["image_starts"]
    types = model.splice(ids, mask, None, data["pixel_values"], None, "right").mm_token_type_ids[0]
    assert [types.tolist().index(VISUAL + 2 * number) for number in range(len(starts))] == starts


@pytest.mark.parametrize("name", CASES)
def test_logits_and_loss_equal_the_originals(model, name):
    data = arrays("mm", name)
    labels = data["labels_in"].reshape(1, -1)
    output = model(
        input_ids=data["input_ids"].reshape(1, -1),
        labels=labels,
        output_hidden_states=True,
        **prompt_of(data),
    )
    close(output.logits[0, data["logit_positions"]], data["logits"], **TOLERANCE)
    close(output.logits[0].logsumexp(-1), data["logits_logsumexp"], **TOLERANCE)
    assert torch.equal(output.logits[0].argmax(-1), data["logits_argmax"])
    if "last_hidden" in data:
        close(output.hidden_states[-1], data["last_hidden"], **TOLERANCE)
    close(output.loss, data["loss"], equal_nan=True, **TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_greedy_and_beam_answers_equal_the_originals(model, name):
    data = arrays("mm", name)
    ids = data["input_ids"].reshape(1, -1)
    greedy = model.generate(ids, **OPTIONS, **prompt_of(data))
    assert greedy.tolist() == data["greedy_ids"].tolist()
    beams = model.generate(ids, num_return_sequences=3, **BEAMS, **OPTIONS, **prompt_of(data))
    assert beams.sequences.tolist() == data["beam3_ids"].tolist()
    close(beams.sequences_scores, data["beam3_scores"], atol=1e-5, rtol=0)
