"""Damaged checkpoints of any kind end in one ValueError that names the file or what doesn't fit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.model.builder import load_pretrained_model, load_tokenizer
from llava.model.files import weight_names
from llava.train.checkpoint import save_projector
from tests.llava.model.test_lora import write_lora


def load(path, base=None, **options):
    options = {"device": "cpu", "device_map": None, **options}
    return load_pretrained_model(str(path), None if base is None else str(base), **options)


def refuses(match, path, base=None, **options):
    with pytest.raises(ValueError, match=match):
        load(path, base, **options)


@pytest.fixture
def full(tiny_llava, tmp_path):
    tokenizer, model, _ = tiny_llava()
    model.save_pretrained(tmp_path / "full")
    tokenizer.save_pretrained(tmp_path / "full")
    return tmp_path / "full"


@pytest.fixture
def lora(tiny_llava, tmp_path):
    (tmp_path / "lora").mkdir()
    write_lora(tiny_llava()[1], tmp_path / "lora")
    return tmp_path / "lora"


@pytest.fixture
def projector(tiny_llava, tmp_path):
    save_projector(tiny_llava()[1], tmp_path / "stage1", is_writer=True)
    return tmp_path / "stage1"


def edit(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def as_shards(folder, index):
    """Turn a full checkpoint into one .bin shard and an index of this text."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model-00001-of-00001.bin")
    weight_map = dict.fromkeys(weights, "pytorch_model-00001-of-00001.bin")
    text = json.dumps({"metadata": {}, "weight_map": weight_map}) if index is None else index
    (folder / "pytorch_model.bin.index.json").write_text(text)
    return folder / "pytorch_model-00001-of-00001.bin"


def test_a_shard_that_is_empty_or_cut_off_is_named(full):
    shard = as_shards(full, None)
    load(full)
    content = shard.read_bytes()
    for damaged in (b"", content[:100], content[:-1000], b"not a torch file"):
        shard.write_bytes(damaged)
        refuses(r"the weights in .*full can't be read", full)


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_a_weight_file_that_is_empty_or_cut_off_is_named(full, kind):
    weights = load_file(full / "model.safetensors")
    (full / "model.safetensors").unlink()
    file = full / kind
    save_file(weights, file, metadata={"format": "pt"}) if "safe" in kind else torch.save(weights, file)
    content = file.read_bytes()
    for damaged in (b"", content[:100], content[:-1000]):
        file.write_bytes(damaged)
        refuses(r"the weights in .*full can't be read", full)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", r"index\.json has no weight_map"),
        ('{"weight_map": ["a"]}', r"index\.json has no weight_map"),
        ('{"weight_map": {}}', r"index\.json has no metadata"),
        ('{"weight_map": ', r"index\.json can't be read as JSON"),
        ("[" * 100000, r"index\.json can't be read as JSON"),
        ("[]", r"index\.json holds a JSON list; expected an object"),
    ],
)
def test_a_damaged_index_is_named(full, index, message):
    as_shards(full, index)
    refuses(message, full)
    with pytest.raises(ValueError, match=message):
        weight_names(str(full))


@pytest.mark.parametrize("kind", ["full", "lora", "projector"])
@pytest.mark.parametrize("content", ["[]", '"text"', "{", "7"])
def test_a_config_json_that_is_no_object_is_named(request, tiny_base, kind, content):
    folder = request.getfixturevalue(kind)
    (folder / "config.json").write_text(content)
    refuses(r"config\.json", folder, None if kind == "full" else tiny_base)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mm_projector_type": None}, r"full/config\.json: unknown mm_projector_type None; known: linear"),
        ({"mm_vision_select_layer": -9}, r"full/config\.json: mm_vision_select_layer=-9, but .* 3 layers"),
        ({"mm_vision_select_layer": None}, r"full/config\.json: mm_vision_select_layer=None"),
        ({"mm_patch_merge_type": "foo"}, r"full/config\.json: unknown mm_patch_merge_type 'foo'"),
        ({"mm_patch_merge_type": None}, r"full/config\.json: unknown mm_patch_merge_type None"),
    ],
)
def test_settings_that_the_first_image_would_fail_on_are_refused_before_weights_are_read(
    full, fields, message
):
    edit(full / "config.json", **fields)
    (full / "model.safetensors").write_bytes(b"")
    refuses(message, full)


def test_an_adapter_weight_of_another_shape_is_listed(lora, tiny_base):
    file = lora / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "q_proj.lora_A" in name)
    save_file({**weights, name: torch.zeros(4, 7)}, file)
    refuses(r"another shape .*q_proj.lora_A.weight \(4, 7\) instead of \(4, 64\)", lora, tiny_base)
    save_file(weights, file)
    edit(lora / "adapter_config.json", r=8)
    refuses(
        r"another shape than its adapter_config.json \(r=8\).*\(4, 64\) instead of \(8, 64\)", lora, tiny_base
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"adapter_config\.json can't be read as JSON"),
        ("[]", r"adapter_config\.json holds a JSON list"),
        ('{"peft_type": "LORA", "r": "x"}', r"adapter_config\.json"),
        ("{}", r"adapter_config\.json"),
        ('{"peft_type": "NOVEL"}', r"adapter_config\.json"),
    ],
)
def test_a_damaged_adapter_config_is_named(lora, tiny_base, content, message):
    (lora / "adapter_config.json").write_text(content)
    refuses(message, lora, tiny_base)


@pytest.mark.parametrize("kind", ["projector", "lora"])
def test_a_file_without_a_projector_is_blamed_itself_and_not_its_base(request, tiny_base, kind):
    folder = request.getfixturevalue(kind)
    file = folder / ("mm_projector.bin" if kind == "projector" else "non_lora_trainables.bin")
    weights = torch.load(file, weights_only=True)
    bare = {name.split("mm_projector.")[1]: weights[name] for name in weights if "projector" in name}
    for content in ({}, bare):
        torch.save(content, file)
        refuses(rf"{file.name} holds no projector: expected mlp2x_gelu weights", folder, tiny_base)


def test_an_identity_projector_needs_no_weights(tiny_llava, tiny_base, tmp_path):
    model = tiny_llava()[1]
    save_projector(model, tmp_path, is_writer=True)
    edit(tmp_path / "config.json", mm_projector_type="identity", mm_hidden_size=64)
    torch.save({}, tmp_path / "mm_projector.bin")
    assert not list(load(tmp_path, tiny_base)[1].model.mm_projector.parameters())


def test_flash_attention_without_its_package_is_a_user_error(full):
    refuses(r"full can't be loaded as asked for, a package is missing: .*[Ff]lash", full, use_flash_attn=True)


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"garbage \xff", b"", b"[]", b"{}"])
def test_a_damaged_tokenizer_is_named(full, tmp_path, name, content):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for file in full.glob("*token*"):
        if name == "tokenizer_config.json" or file.name not in ("tokenizer.model", "tokenizer.json"):
            shutil.copyfile(file, folder / file.name)
    (folder / name).write_bytes(content)
    if (name, content) == ("tokenizer_config.json", b"{}"):
        assert len(load_tokenizer(folder)) == 1000
        return
    with pytest.raises(ValueError, match=r"/tokenizer"):
        load_tokenizer(folder)
