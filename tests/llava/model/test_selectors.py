"""Methods in front of the projector, through the seam: on a plain checkpoint, trained, and refused."""

import shutil
from functools import cache

import pytest
import torch
from PIL import Image
from torch.nn import functional

from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model
from llava.model.config import LlavaConfig
from llava.model.report import flops_ratios
from tests.llava.model.prompts import PROMPTS, alone, make_batch, make_images
from tests.llava.model.shrinking import asked

GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
SELECTORS = {
    "prumerge_plus uniform=2 neighbours=3 iqr=0.3": None,
    "visionzip dominant=5 contextual=3": 8,
    "downsample side=28": 4,
}
"""Words of --reduction, and the tokens of one image; None where they depend on it."""
KEEP_ALL = ["prumerge_plus uniform=16", "visionzip dominant=16 contextual=0", "downsample side=56"]
each_selector = pytest.mark.parametrize("words", SELECTORS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tiny_llava):
    """A plain checkpoint."""
    folder = tmp_path_factory.mktemp("plain")
    tokenizer, model, _ = tiny_llava()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def load(plain):
    """A function that loads the plain checkpoint with the words of --reduction, once; not to be changed."""
    return cache(
        lambda words=None: load_pretrained_model(
            str(plain), None, device="cpu", reduction=words.split() if words else None
        )[1]
    )


def fitted(model, batch):
    """The batch with pictures as small as the tower takes them."""
    side = model.get_vision_tower().image_side
    return {**batch, "images": functional.interpolate(batch["images"], size=side)}


def generate(model, batch, **options):
    batch = fitted(model, batch)
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"], **GREEDY, **options}
    return model.generate_with_report(batch["input_ids"], **given)


@each_selector
def test_a_batch_of_prompts_answers_as_each_alone(load, words):
    model = load(words)
    together, reports = generate(model, make_batch())
    for row in range(len(PROMPTS)):
        ids, [report] = generate(model, alone(row))
        assert torch.equal(ids[0], together[row])
        assert report == reports[row]
    right, _ = generate(model, make_batch(side="right"))
    assert torch.equal(right, together)
    dense, _ = generate(load(), make_batch())
    assert torch.equal(dense[2], together[2])  # text alone
    assert not torch.equal(dense, together)


@each_selector
def test_reports_say_what_every_layer_saw_and_what_plain_llava_would(load, words):
    model, promised = load(words), SELECTORS[words]
    _, reports = generate(model, make_batch())
    for (ids, images), report in zip(PROMPTS, reports, strict=True):
        [visual] = set(report.visual_tokens_per_layer)
        assert visual < 16 * images or not images
        assert promised is None or visual == promised * images
        assert report.tokens_per_layer == (len(ids) - images + visual,) * 4
        assert report.dense_visual_tokens == 16 * images
        assert report.visual_grids == (((2, 2),) * images if words.startswith("downsample") else ())
        assert (report.route, report.probabilities) == ((), ())
        ratios = flops_ratios(report, model.config)
        assert (ratios["paper"] < 1) == (ratios["full"] < 1) == bool(images)


def test_how_many_tokens_prumerge_leaves_depends_on_the_image(load):
    model = load(next(iter(SELECTORS)))
    found = model.model.visual_tokens(make_images(6), None, [True] * 6)
    counts = [block.length for [block] in found.images]
    assert len(set(counts)) > 1
    assert all(block.length + block.spared == 16 for [block] in found.images)
    assert sum(counts) == len(found.tokens)


@pytest.mark.parametrize("words", KEEP_ALL)
def test_keeping_everything_answers_as_the_dense_model(load, words):
    batch = make_batch()
    kept, reports = generate(load(words), batch)
    dense, expected = generate(load(), batch)
    assert torch.equal(kept, dense)
    assert [report._replace(visual_grids=()) for report in reports] == [
        report._replace(visual_grids=()) for report in expected
    ]
    given = {name: batch[name] for name in ("input_ids", "attention_mask", "images")}
    torch.testing.assert_close(load(words)(**given).logits, load()(**given).logits, atol=2e-4, rtol=1e-4)


@each_selector
def test_cached_decoding_equals_recomputing(load, words):
    model, batch = load(words), fitted(load(words), make_batch())
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"], **GREEDY}
    cached = model.generate(batch["input_ids"], **given)
    assert torch.equal(model.generate(batch["input_ids"], **given, use_cache=False), cached)
    assert len({tuple(row) for row in cached.tolist()}) > 1


@each_selector
def test_beams_and_samples_decode(load, words):
    model, batch = load(words), fitted(load(words), make_batch())
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"], **GREEDY}
    beams, reports = generate(model, make_batch(), num_beams=3)
    assert beams.shape == (4, 5)
    assert reports == generate(model, make_batch())[1]
    torch.manual_seed(0)
    given |= {"do_sample": True, "top_k": 1, "num_return_sequences": 2}
    assert torch.equal(model.generate(batch["input_ids"], **given)[::2], generate(model, make_batch())[0])


@each_selector
@torch.no_grad()
def test_the_loss_of_a_ragged_batch_is_the_mean_of_its_rows(load, words):
    model = load(words)
    loss = model(**fitted(model, make_batch(side="right", answers=2))).loss.item()
    rows = [model(**fitted(model, alone(row, answers=2))).loss.item() for row in range(4)]
    assert loss == pytest.approx(sum(rows) / 4, abs=1e-5)


@pytest.mark.parametrize("words", [words for words in SELECTORS if not words.startswith("downsample")])
@torch.no_grad()
def test_every_crop_of_an_image_is_judged_alone(load, words):
    model = load(words).model
    crops = make_images(5)
    found = model.visual_tokens([crops[:3], crops[3], crops[4:]], None, [True, False, True])
    assert [len(blocks) for blocks in found.images] == [3, 0, 1]
    singles = [model.visual_tokens(crops[index : index + 1], None, [True]) for index in (0, 1, 2, 4)]
    torch.testing.assert_close(found.tokens, torch.cat([single.tokens for single in singles]))
    assert [block for blocks in found.images for block in blocks] == [
        block for single in singles for [block] in single.images
    ]
    with pytest.raises(ValueError, match=f"tokens of every crop, which --reduction {words.split()[0]}"):
        model.encode_images(crops)


def test_tiles_of_anyres_are_judged_alone_where_they_follow_one_another(load):
    model = load("visionzip dominant=3 contextual=1")
    ids = torch.tensor([[1, -200, 45, 46]])
    tiles = make_images(5)  # the whole image and 2 x 2 tiles
    _, [report] = model.generate_with_report(ids, images=[tiles], image_sizes=[(112, 112)], **GREEDY)
    assert (report.visual_tokens_per_layer[0], report.dense_visual_tokens) == (20, 80)


def test_a_smaller_image_is_resized_from_the_file_as_the_processor_does(plain):
    words = ["downsample", "side=28"]
    _, model, processor, _ = load_pretrained_model(str(plain), None, device="cpu", reduction=words)
    pixels = process_images([Image.new("RGB", (80, 60), "red")], processor, model.config)
    assert pixels.shape == (1, 3, 28, 28)
    assert model.model.visual_tokens(pixels, None, [True]).tokens.shape == (4, 64)
    with pytest.raises(ValueError, match="takes 28x28 pixels, got images of shape"):
        model.encode_images(make_images(1))


@each_selector
def test_routes_and_budgets_are_refused(load, words):
    model, batch = load(words), make_batch()
    method = words.split()[0]
    with pytest.raises(ValueError, match="routes are given, but "):
        generate(model, batch, routes=[["1x1"]] * 4)
    with pytest.raises(ValueError, match=f"budget=0.4 moves the choice of routers, and --reduction {method}"):
        generate(model, batch, budget=0.4)


def test_downsample_trains_and_its_checkpoint_runs_with_it(tiny_llava, tmp_path):
    tokenizer, model, processor = tiny_llava("downsample", "side=28")
    assert processor.crop_size["height"] == 28
    batch = fitted(model, make_batch(side="right", answers=2))
    model.train()(**batch).loss.backward()
    assert model.model.mm_projector[0].weight.grad.abs().sum() > 0
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = load_pretrained_model(str(tmp_path), None, device="cpu")[1]
    assert generate(again, alone(0))[1][0].visual_tokens_per_layer == (4,) * 4
    with pytest.raises(ValueError, match="trained with side=28, so it can't run with side=14"):
        load_pretrained_model(str(tmp_path), None, device="cpu", reduction=["downsample", "side=14"])


@pytest.mark.parametrize("words", [words for words in SELECTORS if not words.startswith("downsample")])
def test_what_has_nothing_to_learn_is_not_trained_with(tiny_llava, words):
    method = words.split()[0]
    with pytest.raises(ValueError, match=f"--reduction {method} has nothing to learn .* train without it"):
        tiny_llava(*words.split())


def test_downsample_with_a_projector_that_leaves_fewer_tokens_is_refused(tiny_llava):
    with pytest.raises(ValueError, match=r"downsample needs a projector .* mm_projector_type=average_pool"):
        tiny_llava("downsample", "side=28", **asked("average_pool"))


ANYRES = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[112, 112]]}


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        ("visionzip", {"mm_vision_select_feature": "cls_patch"}, "visionzip takes the features of patches"),
        ("downsample side=28", {"mm_vision_select_feature": "cls_patch"}, "mm_vision_select_feature='cls_p"),
        ("visionzip", {"mm_patch_merge_type": "spatial", **ANYRES}, "no grid .*='spatial' lays .* use flat"),
        ("prumerge_plus", {"mm_vision_select_layer": -4}, "layer=-4 takes the embedding, in front of all"),
        ("downsample side=28", ANYRES, "downsample shrinks the whole image, .* use pad"),
        ("downsample side=30", {}, r"side=30 must be a multiple of .* 14 pixels and at most its own 56"),
        ("downsample", {}, "side=168 must be a multiple of .* at most its own 56 pixels"),
        ("visionzip dominant=14 contextual=3", {}, r"ask for 14 \+ 3 tokens of the 16 features"),
        ("visionzip dominant=1.5", {}, "dominant is a share of the features below 1, .* got 1.5"),
        ("visionzap", {}, "unknown reduction 'visionzap'; did you mean visionzip"),
        ("visionzip dominent=3", {}, "has no field 'dominent'; did you mean dominant"),
    ],
)
def test_what_does_not_fit_is_refused_before_weights_are_loaded(plain, tmp_path, words, settings, message):
    shutil.copytree(plain, tmp_path, dirs_exist_ok=True)
    config = LlavaConfig.from_pretrained(plain)
    for name, value in settings.items():
        setattr(config, name, value)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_pretrained_model(str(tmp_path), None, device="cpu", reduction=words.split())
