"""LLaVA's format to transformers' and back: weights are the same bits, logits are the golden ones."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from llava.mm_utils import process_images
from llava.model.builder import load_pretrained_model
from llava.model.convert import main
from llava.model.files import find_source
from llava.train.checkpoint import save_projector
from tests.golden_data import case_folder, golden_root

CASES = sorted(path.stem for path in case_folder("hf").glob("*.npz"))


def load(path, **options):
    return load_pretrained_model(str(path), None, device="cpu", device_map=None, **options)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Give the original checkpoint, its HF form and that one converted back."""
    root = tmp_path_factory.mktemp("convert")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(golden_root() / "common")
        main(["--src", "llava-tiny", "--dst", str(root / "hf"), "--to", "hf"])
        main(["--src", str(root / "hf"), "--dst", str(root / "back"), "--to", "llava"])
    return golden_root() / "common/llava-tiny", root / "hf", root / "back"


@pytest.fixture(scope="module")
def models(folders):
    """Give transformers' own model, ours read from the same folder, and ours converted back."""
    theirs, info = LlavaForConditionalGeneration.from_pretrained(folders[1], output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return theirs.eval(), load(folders[1])[1], load(folders[2])[1]


def prompt(case):
    data = np.load(case_folder("mm") / f"{case}.npz")
    ids = torch.from_numpy(data["input_ids"])
    pixels = torch.from_numpy(data["pixel_values"]) if "pixel_values" in data.files else None
    return data, ids, pixels


def expanded(ids):
    """Put 16 times the image token in place of every sentinel."""
    row = [[1000] * 16 if token == -200 else [token] for token in ids[0].tolist()]
    return torch.tensor([[token for group in row for token in group]])


@pytest.mark.parametrize("case", CASES)
def test_logits_through_transformers_own_class_are_the_golden_ones(models, case):
    golden = np.load(case_folder("hf") / f"{case}.npz")
    data, ids, pixels = prompt(case)
    ids = expanded(ids)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs |= {} if pixels is None else {"pixel_values": pixels}
    logits = models[0](**inputs).logits[0]
    for facts, name in ((golden, "hf_logits"), (data, "logits")):
        found = logits[torch.from_numpy(facts["logit_positions"]), :1000]
        torch.testing.assert_close(found, torch.from_numpy(facts[name]), atol=1e-4, rtol=0)
    assert (logits[:, 1000:].amax(1) < logits[:, :1000].amax(1)).all()  # the added rows never win
    answer = models[0].generate(**inputs, max_new_tokens=16, do_sample=False, eos_token_id=2)
    assert answer[:, ids.shape[1] :].tolist() == golden["hf_native_greedy_ids"].tolist()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", [1, 2], ids=["read from HF", "converted back"])
def test_ours_gives_the_golden_numbers_of_transformers(models, case, which):
    golden, (data, ids, pixels) = np.load(case_folder("hf") / f"{case}.npz"), prompt(case)
    inputs = {"attention_mask": torch.ones_like(ids), "images": pixels}
    output = models[which](input_ids=ids, labels=torch.from_numpy(data["labels_in"]).reshape(1, -1), **inputs)
    positions = torch.from_numpy(golden["logit_positions"])
    torch.testing.assert_close(
        output.logits[0, positions], torch.from_numpy(golden["hf_logits"]), atol=1e-4, rtol=0
    )
    np.testing.assert_allclose(output.loss.item(), golden["hf_loss_1000"], atol=1e-4, equal_nan=True)
    options = {"max_new_tokens": 16, "do_sample": False, **inputs}
    assert models[which].generate(ids, **options).tolist() == golden["hf_greedy_ids"].tolist()
    beams = models[which].generate(ids, num_beams=3, num_return_sequences=3, **options)
    assert beams.tolist() == golden["hf_beam3_ids"].tolist()


def test_the_way_there_and_back_gives_the_same_bits_and_settings(folders, models, monkeypatch):
    monkeypatch.chdir(golden_root() / "common")
    tokenizer, model, _, _ = load("llava-tiny")
    for name, value in model.state_dict().items():
        for other in models[1:]:
            assert torch.equal(value, other.state_dict()[name]), name
    before, after = model.config.to_dict(), models[2].config.to_dict()
    unread = {"_name_or_path", "mm_vision_tower", "use_mm_proj", "freeze_mm_mlp_adapter"}
    unread |= {"freeze_mm_vision_resampler", "tune_mm_vision_resampler", "mm_resampler_type"}
    assert {key for key in before | after if before.get(key) != after.get(key)} <= unread
    text = "USER: <image>\n hi</s>USER: what ASSISTANT:"
    for path in folders[1:]:
        loaded = load(path)[0]
        assert (len(loaded), loaded.pad_token_id, loaded.legacy) == (1000, 0, False)
        assert loaded(text).input_ids == tokenizer(text).input_ids
    assert (folders[2] / "tokenizer.model").is_file()


def test_a_trained_tower_and_a_stage_1_projector_on_its_base_go_along(tiny_llava, tiny_base, tmp_path):
    tokenizer, model, _ = tiny_llava()
    save_projector(model, tmp_path / "stage1", is_writer=True)
    model.config.unfreeze_mm_vision_tower = True
    torch.nn.init.normal_(model.model.vision_tower.vision_tower.embeddings.class_embedding)
    model.save_pretrained(tmp_path / "full")
    tokenizer.save_pretrained(tmp_path / "full")
    ids, pixels = torch.tensor([[1, 21, -200, 45, 46]]), torch.randn(1, 3, 56, 56)
    for name, base in (("full", []), ("stage1", ["--base", str(tiny_base)])):
        target = tmp_path / f"{name}-hf"
        main(["--src", str(tmp_path / name), "--dst", str(target), "--to", "hf", *base])
        theirs = LlavaForConditionalGeneration.from_pretrained(target)
        logits = theirs(input_ids=expanded(ids), pixel_values=pixels).logits[..., :1000]
        ours = load_pretrained_model(
            str(tmp_path / name), base[1] if base else None, device="cpu", device_map=None
        )[1]
        torch.testing.assert_close(logits, ours(input_ids=ids, images=pixels).logits, atol=1e-4, rtol=0)


def test_the_context_length_comes_back(tiny_llava, tmp_path):
    tokenizer, model, _ = tiny_llava()
    model.config.max_sequence_length = 77
    model.save_pretrained(tmp_path / "full")
    tokenizer.save_pretrained(tmp_path / "full")
    main(["--src", str(tmp_path / "full"), "--dst", str(tmp_path / "hf"), "--to", "hf"])
    main(["--src", str(tmp_path / "hf"), "--dst", str(tmp_path / "back"), "--to", "llava"])
    assert [load(tmp_path / name)[3] for name in ("full", "hf", "back")] == [77] * 3


def test_hf_names_are_the_golden_ones_with_clips_legacy_level(folders):
    facts = json.loads((golden_root() / "common/hf_key_map.json").read_text())
    names = {
        name.replace("vision_tower.", "vision_tower.vision_model.") for name in facts["names_in_saved_file"]
    }
    assert set(load_file(folders[1] / "model.safetensors")) == names


def test_all_names_that_transformers_writes_are_read(folders, tmp_path):
    for file in folders[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folders[1] / "model.safetensors")
    memory = LlavaForConditionalGeneration.from_pretrained(folders[1]).state_dict()
    fresh = {
        name.replace("vision_tower.vision_model.", "vision_tower."): value for name, value in weights.items()
    }
    expected = load(folders[1])[1].state_dict()
    for names in (memory, fresh):
        save_file(dict(names), tmp_path / "model.safetensors", metadata={"format": "pt"})
        loaded = load(tmp_path)[1].state_dict()
        assert all(torch.equal(value, loaded[name]) for name, value in expected.items())


def test_transformers_processor_gives_our_pixels_and_one_id_per_visual_token(folders):
    processor = AutoProcessor.from_pretrained(folders[1])
    _, model, ours, _ = load(folders[1])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    inputs = processor(images=image, text="USER: <image> hi", return_tensors="pt")
    assert inputs["input_ids"].tolist()[0].count(1000) == 16
    expected = process_images([image], ours, model.config)
    torch.testing.assert_close(inputs["pixel_values"], expected, atol=1e-6, rtol=0)


def test_the_golden_hf_checkpoint_has_the_originals_weights(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(golden_root() / "common")
    if not (golden_root() / "common/hf-llava-tiny").is_dir():
        pytest.skip("hf-llava-tiny is in the full reference data only (LLAVA_GOLDEN)")
    main(
        [
            "--src",
            "hf-llava-tiny",
            "--dst",
            str(tmp_path / "back"),
            "--to",
            "llava",
            "--vision-tower",
            "clip-tiny",
        ]
    )
    assert "holds no tokenizer" in caplog.text
    assert "taking image_aspect_ratio=pad" in caplog.text
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / "back" / name).write_bytes((golden_root() / "common/llava-tiny" / name).read_bytes())
    original, back = load("llava-tiny")[1], load(tmp_path / "back")[1]
    assert back.config.mm_vision_tower == "clip-tiny"
    for name, value in original.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


def test_a_tower_of_another_name_must_have_the_same_weights(folders, tmp_path, monkeypatch):
    weights = load_file(golden_root() / "common/clip-tiny/model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((golden_root() / "common/clip-tiny" / name).read_bytes())
    changed = {
        name: value + (1e-3 if "post_layernorm.bias" in name else 0) for name, value in weights.items()
    }
    save_file(changed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    arguments = ["--src", str(folders[1]), "--to", "llava", "--dst", str(tmp_path / "back"), "--vision-tower"]
    with pytest.raises(ValueError, match="has other weights than the checkpoint's own"):
        main([*arguments, str(tmp_path)])


def test_what_the_other_format_can_not_express_is_refused(folders, tiny_llava, tmp_path):
    tokenizer, model, _ = tiny_llava("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
    model.save_pretrained(tmp_path / "dpn")
    tokenizer.save_pretrained(tmp_path / "dpn")
    with pytest.raises(ValueError, match="can't express reduction="):
        main(["--src", str(tmp_path / "dpn"), "--dst", str(tmp_path / "new"), "--to", "hf"])
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="is an HF-format checkpoint already"):
        main(["--src", str(folders[1]), "--dst", str(tmp_path / "new2"), "--to", "hf"])
    with pytest.raises(ValueError, match="isn't in HF format"):
        main(["--src", str(folders[2]), "--dst", str(tmp_path / "new3"), "--to", "llava"])
    with pytest.raises(ValueError, match="exists already and isn't empty"):
        main(["--src", str(folders[2]), "--dst", str(folders[1]), "--to", "hf"])
    with pytest.raises(ValueError, match="needs no base"):
        find_source(str(folders[1]), str(folders[0]))


def test_without_an_image_processor_loading_and_converting_take_clips_with_a_notice(
    folders, tmp_path, caplog
):
    (tmp_path / "hf").mkdir()
    for file in folders[1].iterdir():
        if file.name not in ("preprocessor_config.json", "processor_config.json"):
            (tmp_path / "hf" / file.name).symlink_to(file)
    loaded = load(tmp_path / "hf")[2]
    assert "holds no image processor; taking CLIP's own for 56 pixels a side" in caplog.text
    main(["--src", str(tmp_path / "hf"), "--dst", str(tmp_path / "back"), "--to", "llava"])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    expected = load(folders[1])[2](image, return_tensors="pt").pixel_values
    for processor in (loaded, load(tmp_path / "back")[2]):
        assert torch.equal(processor(image, return_tensors="pt").pixel_values, expected)
    (tmp_path / "hf/preprocessor_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"holds no preprocessor_config.json"):
        load(tmp_path / "hf")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projector_hidden_act": "relu"}, "projector_hidden_act='relu' instead of 'gelu'"),
        ({"vision_feature_layer": [-2, -1]}, "type of vision_feature_layer='list' instead of 'int'"),
    ],
)
def test_an_hf_checkpoint_of_another_model_is_refused(folders, tmp_path, fields, message):
    config = json.loads((folders[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
