"""Pixels and ids equal upstream's; broken image files are refused by name."""

import base64
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava.mm_utils import (
    KeywordsStoppingCriteria,
    divide_to_patches,
    expand2square,
    get_anyres_image_grid_shape,
    get_model_name_from_path,
    load_image,
    load_image_from_base64,
    mean_colour,
    process_anyres_image,
    process_images,
    resize_and_pad_image,
    select_best_resolution,
    tokenizer_image_token,
)
from llava.model.tokenizer import load_tokenizer
from tests.golden_data import case_folder, golden_root

MISC = case_folder("misc")
ARRAYS = np.load(MISC / "image_helpers.npz")
FACTS = json.loads((MISC / "image_helpers.json").read_text())
IMAGES = {
    int(name.removeprefix("image_")): Image.fromarray(ARRAYS[name])
    for name in ARRAYS.files
    if name.startswith("image_")
}
PROCESSOR = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def cases_of(pattern):
    """Give (name, numbers in it) of the reference arrays whose whole name fits a pattern."""
    fits = [(name, re.fullmatch(pattern, name)) for name in ARRAYS.files]
    return [pytest.param(name, *map(int, fit.groups()), id=name) for name, fit in fits if fit]


def settings(aspect_ratio):
    return SimpleNamespace(image_aspect_ratio=aspect_ratio, image_grid_pinpoints=FACTS["anyres_pinpoints"])


@pytest.mark.parametrize("index", IMAGES)
def test_padding_to_a_square_equals_the_original(index):
    assert mean_colour(PROCESSOR) == (122, 116, 104)
    squared = expand2square(IMAGES[index], mean_colour(PROCESSOR))
    assert np.array_equal(squared, ARRAYS[f"expand2square_{index}"])
    assert np.array_equal(expand2square(IMAGES[index], (0, 0, 0)), ARRAYS[f"expand2square_black_{index}"])


def test_an_odd_line_of_padding_goes_below():
    squared = np.asarray(expand2square(Image.new("RGB", (101, 50), "white"), (0, 0, 0)))
    assert (squared[:25] == 0).all()
    assert (squared[25:75] == 255).all()
    assert (squared[75:] == 0).all()


@pytest.mark.parametrize(
    "aspect_ratio",
    [name.removeprefix("process_images_") for name in ARRAYS.files if name.startswith("process_images_")],
)
def test_pixels_equal_the_originals(aspect_ratio):
    chosen = [IMAGES[index] for index in FACTS.get("process_images_subset", IMAGES)]
    pixels = process_images(chosen, PROCESSOR, settings(None if aspect_ratio == "None" else aspect_ratio))
    expected = torch.from_numpy(ARRAYS[f"process_images_{aspect_ratio}"])
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("aspect_ratio", [None, "pad", "anyres"])
def test_one_image_is_a_list_of_one(aspect_ratio):
    image = Image.new("RGB", (40, 20), "red")
    expected = process_images([image], PROCESSOR, settings(aspect_ratio))
    assert process_images(image, PROCESSOR, settings(aspect_ratio)).equal(expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "I"])
def test_images_of_any_mode_can_be_padded(mode):
    assert process_images([Image.new(mode, (40, 20))], PROCESSOR, settings("pad")).shape == (1, 3, 56, 56)


def test_resolutions_and_grids_equal_the_originals():
    for fact in FACTS["select_best_resolution"]:
        pinpoints, size = fact["pinpoints"], tuple(fact["size_wh"])
        side = 336 if "336" in str(pinpoints) else 56
        grid = get_anyres_image_grid_shape(size, pinpoints, side)
        assert grid == tuple(fact["grid"])
        assert (grid[0] * side, grid[1] * side) == tuple(fact["best"])


def test_among_equal_resolutions_the_least_wasteful_then_the_first_wins():
    assert select_best_resolution((100, 100), [(672, 672), (336, 672), (672, 336)]) == (336, 672)


@pytest.mark.parametrize(("name", "index", "width", "height"), cases_of(r"resize_pad_(\d+)_(\d+)x(\d+)"))
def test_fitting_into_a_size_equals_the_original(name, index, width, height):
    assert np.array_equal(resize_and_pad_image(IMAGES[index], (width, height)), ARRAYS[name])


def test_tiles_equal_the_originals():
    tiles = divide_to_patches(resize_and_pad_image(IMAGES[1], (112, 112)), 56)
    assert len(tiles) == 4
    for index, tile in enumerate(tiles):
        assert np.array_equal(tile, ARRAYS[f"patch_1_{index}"])


def test_tiles_over_the_edge_are_filled_with_black():
    tiles = divide_to_patches(Image.new("RGB", (70, 50), "white"), 50)
    assert [tile.size for tile in tiles] == [(50, 50), (50, 50)]
    assert (np.asarray(tiles[1])[:, :20] == 255).all()
    assert (np.asarray(tiles[1])[:, 20:] == 0).all()
    fact = FACTS.get("divide_uneven", {"image": 1, "patch": 50})  # in the full set only
    for index, tile in enumerate(divide_to_patches(IMAGES[fact["image"]], fact["patch"])):
        assert np.array_equal(tile, ARRAYS.get(f"uneven_patch_{index}", tile))


@pytest.mark.parametrize(("name", "index"), cases_of(r"anyres_(?:strpin_)?(\d+)"))
@pytest.mark.parametrize("as_text", [True, False])
def test_anyres_crops_equal_the_originals(name, index, as_text):
    pinpoints = FACTS["anyres_pinpoints"]
    crops = process_anyres_image(IMAGES[index], PROCESSOR, str(pinpoints) if as_text else pinpoints)
    torch.testing.assert_close(crops, torch.from_numpy(ARRAYS[name]), atol=1e-6, rtol=0)


def test_images_with_unequal_numbers_of_crops_come_as_a_list():
    images = [Image.new("RGB", (100, 30)), Image.new("RGB", (60, 60))]
    pixels = process_images(images, PROCESSOR, settings("anyres"))
    assert [item.shape[0] for item in pixels] == [3, 5]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"),
        ("out/llava/checkpoint-5/", "llava_checkpoint-5"),
        ("checkpoint-5", "checkpoint-5"),
    ],
)
def test_a_model_is_named_after_its_folder(path, name):
    assert get_model_name_from_path(path) == name


def test_an_image_is_opened_as_rgb(tmp_path):
    Image.new("RGBA", (4, 3), (1, 2, 3, 0)).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 3), (1, 2, 3))


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png does not exist"):
        load_image(tmp_path / "gone.png")


@pytest.mark.parametrize("kept", [0, 20, 100, 0.5])
def test_a_corrupt_image_is_named(tmp_path, kept):
    path = tmp_path / "torn.png"
    Image.effect_noise((64, 64), 80).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else kept])
    with pytest.raises(ValueError, match=r"torn\.png can't be read"):
        load_image(path)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("slow_legacy", "tok_slow_legacy"),
        ("slow_nonlegacy", "tok_slow_nonlegacy"),
        ("fast", "tok_fast"),
        ("chatml_slow_legacy", "tok_chatml_legacy"),
        ("chatml_slow_nonlegacy", "tok_chatml_nonlegacy"),
    ],
)
def test_prompts_with_images_have_the_originals_ids(name, folder):
    tokenizer = load_tokenizer(golden_root() / "common" / folder)
    facts = json.loads((case_folder("train_data") / "tokenizer_image_token.json").read_text())
    for fact in (fact for fact in facts if fact["tokenizer"] == name):
        assert tokenizer_image_token(fact["prompt"], tokenizer) == fact["input_ids"], fact["prompt"]


def test_ids_come_as_a_tensor_on_request():
    tokenizer = load_tokenizer(golden_root() / "common/tok_slow_nonlegacy")
    ids = tokenizer_image_token("a<image>b", tokenizer, return_tensors="pt")
    assert ids.dtype == torch.int64
    assert ids.tolist() == tokenizer_image_token("a<image>b", tokenizer)
    with pytest.raises(ValueError, match="None or 'pt', got 'np'"):
        tokenizer_image_token("a", tokenizer, return_tensors="np")


def test_an_image_comes_out_of_base64():
    buffer = io.BytesIO()
    Image.new("L", (3, 2), 7).save(buffer, "PNG")
    image = load_image_from_base64(base64.b64encode(buffer.getvalue()).decode())
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("L", (3, 2), 7)


@pytest.mark.parametrize("text", ["data:image/png;base64,AAAA", base64.b64encode(b"no image").decode()])
def test_text_that_holds_no_image_is_refused(text):
    with pytest.raises(ValueError, match="holds no image that can be read"):
        load_image_from_base64(text)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(golden_root() / "common/tok_slow_nonlegacy")


@pytest.mark.parametrize("with_prompt", [False, True])
def test_an_answer_stops_at_a_keyword_and_a_prompt_with_the_keyword_does_not_count(tokenizer, with_prompt):
    prompt = torch.tensor([tokenizer("What ### is it?").input_ids])
    stop = KeywordsStoppingCriteria(["###"], tokenizer, prompt)
    answers = tokenizer(["a cat", "a dog###"], padding=True, return_tensors="pt").input_ids[:, 1:]
    ids = torch.cat([prompt.expand(2, -1), answers], 1) if with_prompt else answers
    assert stop(ids, None).tolist() == [False, True]


def test_a_keyword_stops_before_the_answer_is_as_long_as_the_prompt(tokenizer):
    prompt = torch.tensor([tokenizer("a long prompt " * 20).input_ids])
    stop = KeywordsStoppingCriteria(["dog"], tokenizer, prompt)
    assert stop(torch.tensor([tokenizer("the dog").input_ids[1:]]), None).tolist() == [True]


def test_an_empty_keyword_is_refused(tokenizer):
    with pytest.raises(ValueError, match="keywords must be texts to stop at, got"):
        KeywordsStoppingCriteria([""], tokenizer, torch.tensor([[1]]))
