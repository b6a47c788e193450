"""The methods DPN is compared with, trained from the command line."""

import json
from types import SimpleNamespace

import pytest

from llava.model.builder import load_pretrained_model
from llava.model.reduction import parse_reduction
from llava.train.arguments import parse
from llava.train.estimate import estimate, expected_keep
from llava.train.train import prepare, run

METHODS = {
    "pyramid_drop": (["layers=1,2", "keeps=0.5,0.5"], [16, 8, 4, 4]),
    "random": (["layers=1,3", "keeps=0.5,0.5"], [16, 8, 8, 4]),
    "static": (["layers=2", "kernels=2x2"], [16, 16, 4, 4]),
    "truncate": (["layer=2"], [16, 16, 0, 0]),
    "fastv": (["layer=1"], [16, 8, 8, 8]),
}
"""Fields, and the visual tokens of an image in the four layers."""


@pytest.mark.parametrize("method", METHODS)
def test_stage_two_trains_with_a_rival_and_its_checkpoint_runs_with_it(method, command, tmp_path):
    fields, visual = METHODS[method]
    run(prepare(command(tmp_path, "--reduction", method, *fields, "--gradient_checkpointing", "True")))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    lines = [line for line in state["log_history"] if "loss" in line]
    assert len(lines) == 2
    places = [0, *(int(place) for place in fields[0].partition("=")[2].split(","))]
    for line in lines:
        assert 0 < line["visual_flops"] < line["flops"] < 1
        assert [line[f"visual_tokens@{place}"] for place in places] == [visual[place] for place in places]
        assert "routing_loss" not in line
        assert not any(name.startswith(("share_", "router_")) for name in line)
    assert json.loads((tmp_path / "config.json").read_text())["reduction"]["method"] == method
    model = load_pretrained_model(str(tmp_path), None, device="cpu")[1]
    assert model.model.reducer.layers == tuple(places[1:])


def test_the_memory_estimate_knows_what_a_rival_keeps(command, tmp_path):
    arguments = parse(command(tmp_path))
    activations = []
    for words in (["none"], ["truncate", "layer=3"], ["pyramid_drop", "layers=1,2", "keeps=0.5,0.5"]):
        found = estimate(arguments, parse_reduction(words), [], world_size=1)
        assert found.expected == found.unpooled
        activations.append(found.expected.activations)
    assert activations == sorted(activations, reverse=True)
    assert activations[2] < activations[1] < activations[0]
    counts = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=4))
    assert expected_keep(parse_reduction(words), counts) == [1.0, 0.5, 0.25, 0.25]


def test_stage_two_trains_on_smaller_images(command, tmp_path):
    words = command(tmp_path, "--reduction", "downsample", "side=16")
    run(prepare(words))
    assert json.loads((tmp_path / "config.json").read_text())["reduction"] == {
        "method": "downsample",
        "side": 16,
    }
    model = load_pretrained_model(str(tmp_path), None, device="cpu")[1]
    assert model.model.crop_shape.tokens == 4
    dense, smaller = (
        estimate(parse(words), parse_reduction(each), [], world_size=1).load.visual_tokens
        for each in (["none"], ["downsample", "side=16"])
    )
    assert smaller * 4 == dense


def test_training_with_a_selector_ends_before_anything_is_loaded(command, tmp_path):
    words = command(tmp_path, "--reduction", "visionzip", "dominant=4", "contextual=0")
    with pytest.raises(ValueError, match=r"--reduction visionzip has nothing to learn .* llava\.eval"):
        run(prepare(words))
