"""The methods DPN is compared with, through the seam: on a plain checkpoint, trained, and refused."""

import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.config import LlavaConfig
from llava.model.report import flops_ratios
from tests.llava.model.prompts import PROMPTS, alone, make_batch

GREEDY = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
RIVALS = {
    "static layers=1,3 kernels=1x2,2x2": [16, 8, 8, 2],
    "fastv layer=2 ratio=0.5": [16, 16, 8, 8],
    "pyramid_drop layers=1,2,3 keeps=0.5,0.5,0.5": [16, 8, 4, 2],
    "pyramid_drop layers=2 keeps=0.3 score=attention": [16, 16, 4, 4],
    "random layers=1,3 keeps=0.5,0.25 seed=3": [16, 8, 8, 2],
    "truncate layer=2": [16, 16, 0, 0],
}
"""Words of --reduction, and the visual tokens of one image in the four layers."""
KEEP_ALL = [
    "static layers=1,3 kernels=1x1,1x1",
    "fastv layer=2 ratio=0",
    "pyramid_drop layers=1,2,3 keeps=1,1,1",
    "random layers=2 keeps=1",
]
each_rival = pytest.mark.parametrize("words", RIVALS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Where a plain checkpoint lies, once some test has saved it."""
    return tmp_path_factory.mktemp("plain")


@pytest.fixture
def load(plain, tiny_llava):
    """A function that loads the plain checkpoint with the words of --reduction."""
    if not (plain / "config.json").exists():
        tokenizer, model, _ = tiny_llava()
        model.save_pretrained(plain)
        tokenizer.save_pretrained(plain)
    return lambda words=None: load_pretrained_model(
        str(plain), None, device="cpu", reduction=words.split() if words else None
    )[1]


def generate(model, batch):
    return model.generate_with_report(
        batch["input_ids"], images=batch["images"], attention_mask=batch["attention_mask"], **GREEDY
    )


@each_rival
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_of_prompts_answers_as_each_alone(load, words, side):
    model = load(words)
    together, reports = generate(model, make_batch(side=side))
    for row in range(len(PROMPTS)):
        ids, [report] = generate(model, alone(row))
        assert torch.equal(ids[0], together[row])
        assert report == reports[row]
    assert not torch.equal(together, generate(load(), make_batch(side=side))[0])


@each_rival
def test_reports_say_what_every_layer_saw(load, words):
    model, promised = load(words), RIVALS[words]
    _, reports = generate(model, make_batch())
    for (ids, images), report in zip(PROMPTS, reports, strict=True):
        assert list(report.visual_tokens_per_layer) == [images * count for count in promised]
        text = len(ids) - images
        assert list(report.tokens_per_layer) == [text + images * count for count in promised]
        assert report.probabilities in ((), ((), ()))
        ratios = flops_ratios(report, model.config)
        assert (ratios["paper"] < 1) == bool(images)
    assert (reports[0].route == ("1x2", "2x2")) == words.startswith("static")
    assert words.startswith("static") or reports[0].route == ()


@pytest.mark.parametrize("words", KEEP_ALL)
def test_keeping_everything_answers_as_the_dense_model(load, words):
    assert torch.equal(generate(load(words), make_batch())[0], generate(load(), make_batch())[0])


@each_rival
def test_beams_and_samples_decode(load, words):
    model, batch = load(words), make_batch()
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"], **GREEDY}
    beams = model.generate(batch["input_ids"], **given, num_beams=3)
    assert beams.shape == (4, 5)
    torch.manual_seed(0)
    given |= {"do_sample": True, "top_k": 1, "num_return_sequences": 2}
    drawn = model.generate(batch["input_ids"], **given)
    assert torch.equal(drawn[::2], generate(model, batch)[0])


@each_rival
def test_routes_and_budgets_are_refused(load, words):
    model, batch = load(words), make_batch()
    method = words.split()[0]
    given = {"images": batch["images"], "attention_mask": batch["attention_mask"], **GREEDY}
    with pytest.raises(ValueError, match=f"--reduction {method} has no routers to take them"):
        model.generate(batch["input_ids"], **given, routes=[["1x1"]] * 4)
    with pytest.raises(ValueError, match=f"budget=0.4 moves the choice of routers, and --reduction {method}"):
        model.generate(batch["input_ids"], **given, budget=0.4)


@each_rival
def test_a_training_step_drops_visual_rows_only(tiny_llava, words):
    """Every label is still predicted, in the rows of a batch as in each sample alone."""
    words = "random layers=1,3 keeps=1,1" if words.startswith("random") else words  # draws differ in training
    model = tiny_llava(*words.split())[1].train()
    batch = make_batch(side="right", answers=2)
    output = model(**batch)
    output.loss.backward()
    assert output.logits is None
    singles = [model(**alone(row, answers=2)).loss.item() for row in range(4)]
    assert output.loss.item() == pytest.approx(sum(singles) / 4, abs=1e-5)
    assert 0 < float(output.metrics["visual_flops"]) <= 1
    projector = model.model.mm_projector[0].weight.grad
    assert projector.abs().sum() > 0


@pytest.mark.parametrize("words", KEEP_ALL)
def test_keeping_everything_trains_as_the_dense_model(tiny_llava, words):
    losses = [
        tiny_llava(*each)[1].train()(**make_batch(side="right", answers=2)).loss
        for each in ((), words.split())
    ]
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-5)


@each_rival
def test_logits_of_all_the_callers_tokens_keep_his_shape(load, words):
    model, batch = load(words), make_batch()
    del batch["labels"]
    full = model(**batch).logits
    assert full.shape[:2] == (4, 37)
    last = model(**batch, logits_to_keep=1).logits
    ends = [len(ids) + 15 * images - 1 for ids, images in PROMPTS]  # merged rows are padded on the right
    torch.testing.assert_close(full[range(4), ends], last[:, 0])


@pytest.fixture
def trained(tiny_llava, tmp_path):
    """A function that saves a checkpoint trained with the words, and gives its folder."""

    def save(*words):
        tokenizer, model, _ = tiny_llava(*words)
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


def test_a_trained_method_comes_from_config_json(trained):
    folder = trained("pyramid_drop", "layers=1,2", "keeps=0.5,0.25")
    model = load_pretrained_model(folder, None, device="cpu")[1]
    assert model.config.reduction["method"] == "pyramid_drop"
    assert generate(model, alone(0))[1][0].visual_tokens_per_layer == (16, 8, 2, 2)
    words = ["pyramid_drop", "keeps=0.25,1"]
    model = load_pretrained_model(folder, None, device="cpu", reduction=words)[1]
    assert generate(model, alone(0))[1][0].visual_tokens_per_layer == (16, 4, 4, 4)


@pytest.mark.parametrize(
    ("own", "asked", "message"),
    [
        ("pyramid_drop layers=1,2 keeps=1,1", "fastv", "with --reduction pyramid_drop, so .* fastv"),
        ("dpn layers=1,2", "fastv layer=1", "with --reduction dpn, so it can't run with --reduction fastv"),
        ("fastv layer=1", "dpn layers=1,2", "with --reduction fastv, so it can't run with --reduction dpn"),
        ("static layers=1 kernels=1x2", "none", r"trained with a reduction \(static\)"),
        ("static layers=1 kernels=1x2", "static kernels=2x2", "no field may change after training"),
        ("fastv layer=1", "fastv layer=2", "trained with layer=1, .* only ratio may change"),
    ],
)
def test_what_contradicts_a_trained_checkpoint_is_refused(trained, own, asked, message):
    folder = trained(*own.split())
    with pytest.raises(ValueError, match=message):
        load_pretrained_model(folder, None, device="cpu", reduction=asked.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "fastv layer=4",
            "a decoder with 4 layers: fastv reduces tokens in front of layer 1 to 3",
        ),
        ("static layers=1 kernels=3x3", "kernel 3x3 does not divide the 4x4 grid"),
        ("fast_v", "unknown reduction 'fast_v'; did you mean fastv"),
        ("fastv k=2", "--reduction fastv has no field 'k'"),
        ("fastv ratio=1", "ratio is the share of the tokens that goes, from 0 to below 1, got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused_before_weights_are_loaded(load, words, message):
    with pytest.raises(ValueError, match=message):
        load(words)


@pytest.fixture
def with_class_token(plain, load):
    """The plain checkpoint as if its tower kept the class token, which leaves no grid."""
    load()
    saved = (plain / "config.json").read_text()
    config = LlavaConfig.from_pretrained(plain)
    config.mm_vision_select_feature = "cls_patch"
    config.save_pretrained(plain)
    yield load
    (plain / "config.json").write_text(saved)


def test_methods_that_only_drop_need_no_grid(with_class_token):
    _, [report] = generate(with_class_token("fastv layer=1"), alone(0))
    assert report.visual_tokens_per_layer == (17, 8, 8, 8)
    with pytest.raises(ValueError, match="--reduction static needs a grid of visual tokens"):
        with_class_token("static layers=1 kernels=2x2")
