"""Other checkpoints: vision weights inside, another projector and feature layer, tiles of anyres."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from llava.mm_utils import process_images
from tests.llava.model.golden import OPTIONS, TOLERANCE, arrays, index, load

ANYRES = sorted(name for name in index("variants") if "best_resolution" in index("variants")[name])
OTHERS = sorted(set(index("variants")) - set(ANYRES))
close = torch.testing.assert_close


def needs(key, data):
    """Skip what the subset of the reference data can't tell: its checkpoints only make features."""
    if key not in data:
        pytest.skip(f"the reference data here have no {key}: set LLAVA_GOLDEN to the full set")


def load_case(name, folder):
    """A case, its arrays, model and image processor."""
    case = index("variants")[name]
    return (
        case,
        arrays("variants", name),
        *load(case["checkpoint"], folder, **case.get("config_override", {})),
    )


@pytest.fixture(scope="module", params=OTHERS)
def variant(request, tmp_path_factory):
    return load_case(request.param, tmp_path_factory.mktemp("golden") / "model")


@pytest.fixture(scope="module", params=ANYRES)
def anyres(request, tmp_path_factory):
    return load_case(request.param, tmp_path_factory.mktemp("golden") / "model")


def check_prompt(model, data, name, ids, **inputs):
    """Compare the logits, hidden states and, where there is one, the greedy answer of a run."""
    mask = data.get(f"{name}_merged_attention_mask")
    inputs = {"input_ids": ids, "attention_mask": (ids != 0) if name == "batch" else None, **inputs}
    output = model(**inputs, output_hidden_states=True)
    rows = torch.arange(len(ids))
    close(
        output.logits[rows, data[f"{name}_last_valid_index"]], data[f"{name}_logits_last_valid"], **TOLERANCE
    )
    real = torch.ones(output.logits.shape[:2]).bool() if mask is None else mask
    close(output.hidden_states[-1][real], data[f"{name}_last_hidden"][real], **TOLERANCE)
    if f"{name}_greedy_ids" in data:
        answer = model.generate(**inputs, **OPTIONS)
        assert answer.tolist() == data[f"{name}_greedy_ids"].tolist()
    return output


def test_features_of_other_checkpoints_equal_the_originals(variant):
    case, data, model, processor = variant
    images = [Image.fromarray(data[f"image_{number}"].numpy()) for number in range(len(data["pixel_values"]))]
    config = SimpleNamespace(image_aspect_ratio=case["image_aspect_ratio"])
    close(process_images(images, processor, config), data["pixel_values"], atol=1e-6, rtol=0)
    close(model.get_vision_tower()(data["pixel_values"]), data["vision_features"], **TOLERANCE)
    close(model.encode_images(data["pixel_values"]), data["projected_features"], **TOLERANCE)


def test_answers_of_other_checkpoints_equal_the_originals(variant):
    case, data, model, _ = variant
    needs("p0_input_ids", data)
    for number, image in enumerate(case["image_of_prompt"]):
        images = None if image is None else data["pixel_values"][image : image + 1]
        check_prompt(model, data, f"p{number}", data[f"p{number}_input_ids"], images=images)


def tiles_of(case, processor, number):
    """The crops of an anyres picture, as stored or made from the picture."""
    data = arrays("variants", "anyres_images")
    picture = Image.fromarray(data[f"image_{number}"].numpy())
    config = SimpleNamespace(image_aspect_ratio="anyres", image_grid_pinpoints=case["pinpoints"])
    pixels = process_images([picture], processor, config)[0]
    if f"pixel_values_{number}" in data:
        close(pixels, data[f"pixel_values_{number}"], atol=1e-6, rtol=0)
    return pixels


def test_merged_tiles_equal_the_originals(anyres):
    case, data, model, processor = anyres
    case = {**case, "pinpoints": model.config.image_grid_pinpoints}
    pictures = [key for key in arrays("variants", "anyres_images") if key.startswith("image_")]
    for number in (int(key.removeprefix("image_")) for key in pictures):
        size = case["sizes_wh"][number]
        visual = model.model.visual_tokens([tiles_of(case, processor, number)], [size], torch.ones(1).bool())
        assert len(visual.tokens) == case["features_per_image"][number]
        if f"merged_image_features_{number}" in data:
            close(visual.tokens, data[f"merged_image_features_{number}"], **TOLERANCE)


def test_answers_about_tiles_equal_the_originals(anyres):
    case, data, model, processor = anyres
    needs("batch_input_ids", data)
    case = {**case, "pinpoints": model.config.image_grid_pinpoints}
    tiles, sizes = [tiles_of(case, processor, number) for number in range(4)], case["sizes_wh"]
    for number in range(4):
        if f"single{number}_last_hidden" in data:
            inputs = {"images": [tiles[number]], "image_sizes": [sizes[number]]}
            check_prompt(model, data, f"single{number}", data["input_ids"], **inputs)
    chosen = case["batch_images"]
    inputs = {"images": [tiles[i] for i in chosen], "image_sizes": [sizes[i] for i in chosen]}
    output = check_prompt(
        model, data, "batch", data["batch_input_ids"], labels=data["batch_labels_in"], **inputs
    )
    close(output.loss, data["batch_loss"], **TOLERANCE)
    check_prompt(model, data, "nosplit", data["input_ids"], images=[tiles[3][0]], image_sizes=[sizes[3]])
