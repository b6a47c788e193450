"""Training a projector that leaves fewer tokens: both stages, adapters, estimates, and what is refused."""

import json
import logging

import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.reduction import PROJECTORS
from llava.train.estimate import estimate
from llava.train.train import _build, prepare, run
from llava.train.trainable import PROJECTOR, part_of
from tests.llava.model.shrinking import NAMES, OPTIONS

EVERY_STEP = ["--save_strategy", "steps", "--save_steps", "1"]


def flags(name, *options):
    """The words that choose a projector; on the world's 4 x 4 grid all make 4 tokens."""
    options = options or [f"{field}={value}" for field, value in (OPTIONS[name] or {}).items()]
    return ["--mm_projector_type", name, *(["--mm_projector_options", *options] if options else [])]


def read(output, base=None):
    return load_pretrained_model(str(output), None if base is None else str(base), device="cpu")[1]


@pytest.fixture(scope="module")
def stage_one(command, tmp_path_factory):
    """A function that gives the output folder of a projector's stage 1, with a checkpoint of every step."""
    done = {}

    def make(name):
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            run(prepare(command(done[name], *flags(name), *EVERY_STEP, stage=1)))
        return done[name]

    return make


@pytest.mark.parametrize("name", NAMES)
def test_stage_one_writes_a_projector_that_has_learned_in_all_its_parameters(stage_one, world, name):
    output = stage_one(name)
    first, last = (
        torch.load(folder / "mm_projector.bin", weights_only=True)
        for folder in (output / "checkpoint-1", output)
    )
    projector = read(output, world / "base").model.mm_projector
    assert first.keys() == {f"model.mm_projector.{key}" for key in projector.state_dict()}
    assert [key for key in first if torch.equal(first[key], last[key])] == []
    assert all(part_of(key) == PROJECTOR for key in first)
    for key, value in projector.state_dict().items():
        assert torch.equal(value, last[f"model.mm_projector.{key}"])


@pytest.mark.parametrize("name", NAMES)
def test_stage_two_goes_on_from_stage_one_and_its_result_answers(stage_one, command, tmp_path, name):
    file = str(stage_one(name) / "mm_projector.bin")
    run(prepare(command(tmp_path, *flags(name), "--pretrain_mm_mlp_adapter", file)))
    model = read(tmp_path)
    assert type(model.model.mm_projector) is PROJECTORS[name]
    _, (report,) = model.generate_with_report(
        torch.tensor([[1, -200, 45]]), images=torch.randn(1, 3, 32, 32), max_new_tokens=2, do_sample=False
    )
    assert (report.visual_tokens_per_layer[0], report.dense_visual_tokens) == (4, 16)


def test_stage_one_is_resumed(stage_one, command, tmp_path, caplog):
    words = command(tmp_path, *flags("resampler"), *EVERY_STEP, stage=1)
    run(prepare([*words, "--max_steps", "1"]))
    (tmp_path / "run.json").write_text((stage_one("resampler") / "run.json").read_text())
    with caplog.at_level(logging.INFO):
        run(prepare(words))
    assert f"going on from {tmp_path / 'checkpoint-1'}" in caplog.text
    whole, resumed = (
        torch.load(folder / "mm_projector.bin", weights_only=True)
        for folder in (stage_one("resampler"), tmp_path)
    )
    assert whole.keys() == resumed.keys()


def test_adapters_and_a_pyramid_train_beside_it(stage_one, command, world, tmp_path):
    file = str(stage_one("token_packer") / "mm_projector.bin")
    words = [*flags("token_packer"), "--pretrain_mm_mlp_adapter", file]
    words += ["--lora_enable", "True", "--lora_r", "4", "--reduction", "dpn", "layers=1,2"]
    run(prepare(command(tmp_path, *words)))
    others = torch.load(tmp_path / "non_lora_trainables.bin", weights_only=True)
    assert any("mm_projector.attention.query" in key for key in others)
    assert not any("lora_" in key for key in others)
    model = read(tmp_path, world / "base")
    saved = others["base_model.model.model.mm_projector.mlp.2.weight"]
    assert torch.equal(model.model.mm_projector.mlp[2].weight, saved)


def test_a_checkpoint_that_goes_on_keeps_its_options(command, tmp_path):
    run(prepare(command(tmp_path / "first", *flags("token_packer", "layers=1,-1"))))
    base = ["--model_name_or_path", str(tmp_path / "first")]
    run(prepare(command(tmp_path / "second", *base, "--mm_projector_type", "token_packer")))
    config = json.loads((tmp_path / "second/config.json").read_text())
    assert config["mm_projector_options"] == {"scale": 2, "layers": [1, -1]}
    with pytest.raises(
        ValueError, match="has a projector of type token_packer, so training can't go on with"
    ):
        run(prepare(command(tmp_path / "third", *base)))
    message = (
        r"has a projector token_packer with the options {'scale': 2, 'layers': \[1, -1\]}, so training can't"
    )
    with pytest.raises(ValueError, match=message):
        run(prepare(command(tmp_path / "third", *base, *flags("token_packer", "scale=4"))))


@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_counts_its_parameters_and_its_tokens(command, tmp_path, name):
    job = prepare(command(tmp_path, *flags(name)))
    found = estimate(job.arguments, job.reduction, [], world_size=1)
    assert found.load.visual_tokens == 3 * 4
    _, model, _ = _build(job)
    count = sum(parameter.numel() for parameter in model.model.mm_projector.parameters())
    assert found.counts.parts[PROJECTOR] == [count, count]
    plain = prepare(command(tmp_path / "plain"))
    assert estimate(plain.arguments, None, [], world_size=1).load.visual_tokens == 3 * 16


def test_samples_are_cut_by_the_tokens_that_there_are(command, world, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        words = ["--model_max_length", "8", "--data_path", str(world / "stage1.json")]
        run(prepare(command(tmp_path, *flags("average_pool"), *words)))
    assert "4 of them for each image" in caplog.text


def test_another_option_in_the_same_folder_is_another_run(stage_one, command):
    output = stage_one("average_pool")
    message = r"holds another run \(mm_projector_options was None, is {'scale': 4}\)"
    with pytest.raises(ValueError, match=message):
        run(prepare(command(output, *flags("average_pool", "scale=4"), *EVERY_STEP, stage=1)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--mm_projector_type", "tokenpacker"],
            "unknown mm_projector_type 'tokenpacker'; did you mean token_packer",
        ),
        (flags("ldp_v2", "scael=2"), r"ldp_v2 has no 'scael'; did you mean scale\?"),
        (flags("ldp_v2", "scale=two"), "scale takes a whole number, got 'two'"),
        (flags("ldp_v2", "scale=3"), "scale=3 does not divide the 4x4 grid"),
        (["--mm_projector_options", "scale=2"], "--mm_projector_type mlp2x_gelu has no options"),
        ([*flags("ldp_v2"), "--mm_vision_select_feature", "cls_patch"], "takes a grid of features"),
        (
            [*flags("resampler"), "--mm_patch_merge_type", "spatial"],
            "mm_projector_type=resampler form no grid",
        ),
        ([*flags("resampler"), "--reduction", "dpn", "layers=1,2"], "mm_projector_type=resampler form none"),
        (flags("resampler", "num_queries=20"), "num_queries=20 is more than the vision tower's 4x4 features"),
    ],
)
def test_what_cannot_work_ends_before_anything_is_loaded(command, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        prepare(command(tmp_path, *words))
