"""Crops to the visual tokens of one image: order, letterbox, newline, and what is refused."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from llava.mm_utils import resize_and_pad_image
from llava.model.config import read_config
from llava.model.loading import load_weights
from llava.model.merging import NO_GRID, Block, Merging, unpad_image
from tests.llava.model.prompts import make_images

PINPOINTS = [(56, 112), (112, 56), (112, 112), (168, 56), (56, 168)]


def merging(kind, **changes):
    newline = torch.full((1,), -1.0) if kind == "spatial_unpad" else None
    fields = {
        "kind": kind,
        "aspect_ratio": "anyres",
        "pinpoints": PINPOINTS,
        "image_side": 56,
        "grid": (2, 2),
        "newline": newline,
    }
    return Merging(**{**fields, **changes})


def numbered(count):
    """Crops of 2 x 2 tokens: token t of crop c is 10 c + t."""
    return (10.0 * torch.arange(count)[:, None] + torch.arange(4))[..., None]


def test_flat_puts_crop_after_crop_and_every_crop_keeps_its_grid():
    flat = merging("flat")
    tokens = flat.merge(numbered(3), None)
    assert tokens.flatten().tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    assert flat.blocks(numbered(3), tokens) == (Block(4, (2, 2)),) * 3


def test_spatial_orders_the_tiles_as_rows_of_the_whole_picture():
    spatial = merging("spatial", pinpoints=str(PINPOINTS))  # config.json may hold the text of the list
    tokens = spatial.merge(numbered(3), (200, 100))  # two tiles side by side
    assert tokens.flatten().tolist() == [0, 1, 2, 3, 10, 11, 20, 21, 12, 13, 22, 23]
    assert spatial.blocks(numbered(3), tokens) == (Block(12, NO_GRID),)


def test_unpad_ends_every_row_with_the_newline_and_drops_the_letterbox():
    unpad = merging("spatial_unpad")
    full = unpad.merge(numbered(3), (200, 100)).flatten().tolist()
    assert full == [0, 1, 2, 3, 10, 11, 20, 21, -1, 12, 13, 22, 23, -1]
    # the tiles hold 113 of 200 columns: of 4 columns of tokens the outer two are black
    narrow = unpad.merge(numbered(5), (113, 200)).flatten().tolist()
    assert narrow == [0, 1, 2, 3, 11, 20, -1, 13, 22, -1, 31, 40, -1, 33, 42, -1]


@pytest.mark.parametrize(("kind", "end"), [("spatial", []), ("spatial_unpad", [-1])])
def test_a_single_crop_needs_neither_size_nor_tiles(kind, end):
    way = merging(kind, aspect_ratio="pad", pinpoints=None)
    tokens = way.merge(numbered(1), None)
    assert tokens.flatten().tolist() == [0, 1, 2, 3, *end]
    assert way.blocks(numbered(1), tokens)[0].grid == ((2, 2) if kind == "spatial" else NO_GRID)


@pytest.mark.parametrize(
    ("shape", "size", "kept"),
    [
        ((2, 8, 8), (30, 20), (slice(1, 7), slice(None))),
        ((2, 8, 8), (20, 30), (slice(None), slice(1, 7))),
        ((1, 4, 12), (300, 30), (slice(1, 3), slice(None))),
        ((1, 12, 4), (10, 100), (slice(None), slice(1, 3))),
        ((2, 8, 8), (17, 16), (slice(None), slice(None))),
        ((1, 8, 4), (100, 100), (slice(2, 6), slice(None))),
    ],
)
def test_unpadding_keeps_what_the_original_kept(shape, size, kept):
    mosaic = torch.arange(math.prod(shape)).reshape(shape)
    assert torch.equal(unpad_image(mosaic, size), mosaic[:, *kept])


def test_a_line_of_the_image_may_fall_to_the_letterbox_as_checkpoints_were_trained():
    fitted = resize_and_pad_image(Image.new("RGB", (30, 20), "white"), (8, 8))
    rows_of_image = int((np.asarray(fitted).max((1, 2)) > 0).sum())
    assert rows_of_image == 6  # 5.33 rounded up
    assert unpad_image(torch.zeros(1, 8, 8), (30, 20)).shape == (1, 6, 8)
    fitted = resize_and_pad_image(Image.new("RGB", (100, 41), "white"), (10, 10))
    assert int((np.asarray(fitted).max((1, 2)) > 0).sum()) == 5  # 4.1 rounded up
    assert unpad_image(torch.zeros(1, 10, 10), (100, 41)).shape == (1, 4, 10)  # and down


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, None, "image_sizes="),
        ({"aspect_ratio": "pad"}, (200, 100), "image_aspect_ratio=anyres .here 'pad'"),
        ({"grid": NO_GRID}, (200, 100), "mm_vision_select_feature=patch"),
        ({}, (100, 100), "2x2 tiles by image_grid_pinpoints, but came with 2"),
    ],
)
def test_tiles_that_cannot_be_laid_out_are_refused(changes, size, message):
    with pytest.raises(ValueError, match=message):
        merging("spatial", **changes).merge(numbered(3), size)


def test_an_unknown_merge_type_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown mm_patch_merge_type 'maxpool' in"):
        merging("maxpool")


def test_a_new_newline_is_drawn_and_learns_from_lists_of_images(tiny_llava):
    model = tiny_llava(mm_patch_merge_type="spatial_unpad")[1].train()
    newline = model.model.image_newline
    assert 0.3 < newline.std() * 64**0.5 < 3
    text = torch.tensor([[1, 45, 46, 47]])
    model(input_ids=text, labels=text, images=list(make_images(1))).loss.backward()
    assert newline.grad is not None


def test_the_newline_is_saved_and_read_again(tiny_llava, tmp_path):
    model = tiny_llava(mm_patch_merge_type="spatial_unpad")[1]
    model.save_pretrained(tmp_path)
    config = read_config(str(tmp_path))
    again = load_weights(str(tmp_path), config, dtype=torch.float32, allow_missing=())
    assert torch.equal(again.model.image_newline, model.model.image_newline)


def test_a_reduction_refuses_tokens_that_form_no_grid(tiny_llava):
    words = ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
    model = tiny_llava(*words, mm_patch_merge_type="spatial_unpad")[1].eval()
    with pytest.raises(ValueError, match="doesn't leave of image 0 with 1 crop"):
        model(input_ids=torch.tensor([[1, -200, 45]]), images=list(make_images(1)))


@pytest.mark.parametrize("kind", ["spatial", "spatial_unpad"])
def test_a_stack_of_images_gets_no_newline_and_a_list_does(kind, tiny_llava):
    """As upstream: a tensor (K, 3, h, w) goes to the projector and nowhere else."""
    model, ids = tiny_llava(mm_patch_merge_type=kind)[1].eval(), torch.tensor([[1, -200, 45]])
    num_patches = model.get_vision_tower().num_patches
    lengths = [
        model(input_ids=ids, images=given).logits.shape[1] for given in (make_images(1), list(make_images(1)))
    ]
    assert lengths == [num_patches + 2, num_patches + 2 + (kind == "spatial_unpad")]
