"""Files of the authors' checkpoints: what is missing is named, and the converter writes ours."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from llava.model.builder import load_pretrained_model
from llava.model.convert import main
from llava.model.llava_llama import LlavaLlamaForCausalLM
from llava.train.build import build_for_training
from tests.llava.model.released_writer import (
    ROUTER_ID,
    published_pooling,
    random_weights,
    write_checkpoint,
    write_tower,
    write_weights,
)
from tests.llava.model.test_released import SAMPLES, make_batch


def load(path, **options):
    return load_pretrained_model(str(path), None, device="cpu", device_map=None, **options)


def logits(model):
    with torch.no_grad():
        return model(**make_batch(SAMPLES[:4])).logits


def edit(folder, **fields):
    content = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    return write_tower(tmp_path_factory.mktemp("released") / "clip")


@pytest.fixture
def folder(tower, tmp_path):
    return write_checkpoint(tmp_path / "dpn", tower)


def static_pooling():
    places = [{"index": index, "kernel_size": [2, 2], "stride": [2, 2]} for index in (0, 1)]
    return published_pooling(pooling_type="static", pooling_layers=places)


def test_the_converter_writes_our_format_with_the_same_bits(folder, tmp_path):
    main(["--src", str(folder), "--dst", str(tmp_path / "ours"), "--to", "dpn"])
    config = json.loads((tmp_path / "ours/config.json").read_text())
    assert (config["model_type"], config["vocab_size"], config["router_token_id"]) == (
        "llava_llama",
        1001,
        1000,
    )
    assert (config["reduction"]["preset"], config["reduction"]["layers"]) == ("paper", [1, 2, 4])
    assert "pooling" not in config
    names = set(load_file(tmp_path / "ours/model.safetensors"))
    assert {f"model.reducer.routers.{index}.hidden.weight" for index in range(3)} < names
    assert not any("pooling_router" in name for name in names)
    tokenizer, model, _, _ = load(tmp_path / "ours")
    original_tokenizer, original, _, _ = load(folder)
    assert torch.equal(logits(model), logits(original))
    text = "USER: what?<ROUTER> ASSISTANT:"
    assert tokenizer(text).input_ids == original_tokenizer(text).input_ids
    assert model.config.reduction == original.config.reduction


def test_the_converter_takes_a_tower_inside_the_folder_along(folder, tower, tmp_path):
    shutil.copytree(tower, folder / "clip")
    edit(folder, mm_vision_tower="clip")
    main(["--src", str(folder), "--dst", str(tmp_path / "ours"), "--to", "dpn", "--dtype", "bfloat16"])
    expected = load(folder)[1]
    shutil.rmtree(folder)
    model = load(tmp_path / "ours", dtype="bfloat16")[1]
    assert model.dtype == torch.bfloat16
    name = "model.reducer.routers.1.predictor.weight"
    assert torch.equal(model.state_dict()[name], expected.state_dict()[name].bfloat16())


def test_the_converter_refuses_other_formats(tiny_llava, tmp_path):
    tokenizer, model, _ = tiny_llava()
    model.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    with pytest.raises(
        ValueError, match=r"isn't in the DPN authors' format: its config.json has no `pooling`"
    ):
        main(["--src", str(tmp_path / "plain"), "--dst", str(tmp_path / "new"), "--to", "dpn"])


def test_the_tower_inside_is_used_and_one_that_is_not_there_comes_from_its_own_folder(folder, tower, caplog):
    name = "model.vision_tower.vision_tower.embeddings.class_embedding"
    own = load_file(tower / "model.safetensors")
    original = own[next(key for key in own if key.endswith("class_embedding"))]
    torch.testing.assert_close(load(folder)[1].state_dict()[name], original * 1.1)
    assert "was trained with its vision tower: the weights inside are used" in caplog.text
    write_weights(folder, random_weights(published_pooling(), 0))
    model = load(folder)[1]
    assert not model.config.unfreeze_mm_vision_tower
    torch.testing.assert_close(model.state_dict()[name], original)


def test_missing_or_foreign_router_weights_are_listed(folder, tower):
    weights = random_weights(published_pooling(), 0)
    lost = weights.pop("model.layers.1.pooling_router.mlp1.1.weight")
    write_weights(folder, weights)
    with pytest.raises(
        ValueError, match=r"missing \['model.reducer.routers.1.hidden.weight'\], unexpected \[\]"
    ):
        load(folder)
    write_weights(folder, weights | {"model.layers.2.pooling_router.mlp1.1.weight": lost})
    with pytest.raises(ValueError, match=r"unexpected \['model.layers.2.pooling_router.mlp1.1.weight'\]"):
        load(folder)


def test_convolutional_experts_of_an_unused_setting_are_refused(folder):
    weights = random_weights(published_pooling(), 0)
    write_weights(folder, weights | {"model.layers.0.experts.1.weight": torch.zeros(64, 1, 1, 2)})
    with pytest.raises(ValueError, match=r"unexpected \['model.layers.0.experts.1.weight'\]"):
        load(folder)
    edit(folder, pooling=published_pooling(pooling_function="conv"))
    with pytest.raises(ValueError, match=r"dpn: pooling.pooling_function='conv' isn't supported"):
        load(folder)


def test_a_vocabulary_without_the_row_of_the_routing_token_is_refused(folder):
    weights = random_weights(published_pooling(), 0)
    cut = {name: weights[name][:ROUTER_ID] for name in ("model.embed_tokens.weight", "lm_head.weight")}
    write_weights(folder, weights | cut)
    edit(folder, vocab_size=ROUTER_ID)
    with pytest.raises(
        ValueError, match=r"reads <ROUTER>, but only 1000 rows of embeddings, and .* row 1000"
    ):
        load(folder)


def test_a_tokenizer_without_the_routing_token_gets_it_back_at_its_row(folder):
    expected = logits(load(folder)[1])
    (folder / "added_tokens.json").unlink()
    tokenizer, model, _, _ = load(folder)
    assert tokenizer.convert_tokens_to_ids("<ROUTER>") == model.config.router_token_id == ROUTER_ID
    assert torch.equal(logits(model), expected)


def test_both_dictionaries_at_once_and_the_two_towers_of_hr_are_refused(folder):
    reduction = load(folder)[1].config.reduction
    edit(folder, reduction=reduction)
    with pytest.raises(ValueError, match=r"has both `pooling` .* and `reduction`"):
        load(folder)
    edit(folder, reduction=None, is_multipath_encoder=True)
    with pytest.raises(
        ValueError, match=r"LLaVA-HR's two towers \(is_multipath_encoder\), which isn't supported"
    ):
        load(folder)


def test_the_model_class_alone_refuses_what_it_would_read_as_a_plain_llava(folder):
    with pytest.raises(ValueError, match="`pooling`, which only load_pretrained_model reads"):
        LlavaLlamaForCausalLM.from_pretrained(folder)


def test_images_of_another_size_than_the_towers_are_refused(folder):
    edit(folder, input_image_size=48)
    load(folder)
    edit(folder, input_image_size=1024)
    with pytest.raises(
        ValueError, match=r"images of 1024 pixels \(input_image_size\), but the tower .* takes 48"
    ):
        load(folder)


def test_a_layer_that_the_decoder_does_not_have_is_refused(folder):
    edit(folder, pooling=published_pooling(indices=(0, 4)))
    with pytest.raises(ValueError, match="layers=1,5 doesn't fit a decoder with 5 layers"):
        load(folder)


def test_static_pooling_needs_no_router_weights(tower, tmp_path):
    folder = write_checkpoint(tmp_path / "static", tower, pooling=static_pooling())
    model = load(folder)[1]
    with torch.no_grad():
        routing = model(**make_batch(SAMPLES[:2])).routing
    assert [counts.tolist() for counts in routing.visual_counts] == [[144, 0], [36, 0], [9, 0]]


def test_training_goes_on_from_a_released_checkpoint(folder, tower):
    options = {
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_use_im_patch_token": False,
    }
    model = build_for_training(model_name_or_path=str(folder), vision_tower=str(tower), **options)[1].eval()
    assert torch.equal(logits(model), logits(load(folder)[1]))
