"""LoRA directories: adapter and base become one model, or the error says what doesn't fit."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from llava.model.builder import load_pretrained_model
from llava.model.merge_lora import main as merge
from tests.llava.model.prompts import PROMPTS, make_batch

DPN = ("dpn", "layers=1,2,3", "min_tokens=0", "skip_below=0")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Q_PROJ = "model.layers.0.self_attn.q_proj"


def load(path, base=None, **options):
    return load_pretrained_model(
        str(path), None if base is None else str(base), device="cpu", device_map=None, **options
    )


def logits(model):
    batch = make_batch(PROMPTS)
    return model(**{**batch, "labels": None}).logits[batch["attention_mask"].any(1)]


@torch.no_grad()
def write_lora(model, folder, *, prefix="base_model.model.", old_file=False):
    """Adapt a model with random values, save it in upstream's layout, and return its logits.

    `prefix` is what the names of non_lora_trainables.bin begin with.
    """
    torch.manual_seed(5)
    outside = r".*\.(vision_tower|mm_projector|reducer)\..*"
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=TARGETS, exclude_modules=outside, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "mm_projector" in name or ".reducer." in name:
            parameter.normal_(std=0.1)
    adapted.save_pretrained(folder)
    model.config.save_pretrained(folder)
    others = {
        prefix + name.removeprefix("base_model.model."): value.detach().clone()
        for name, value in adapted.named_parameters()
        if "mm_projector" in name or ".reducer." in name
    }
    torch.save(others, folder / "non_lora_trainables.bin")
    # as upstream's file: the target list doesn't say that CLIP's layers aren't meant
    fields = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**fields, "exclude_modules": None}))
    if old_file:
        torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
        (folder / "adapter_model.safetensors").unlink()
    return logits(adapted.eval().base_model.model)


@pytest.mark.parametrize("words", [(), DPN], ids=["plain", "dpn"])
@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.", ""])
def test_a_lora_directory_gives_the_logits_of_the_model_that_was_saved(
    tiny_llava, tiny_base, tmp_path, words, prefix
):
    expected = write_lora(tiny_llava(*words)[1], tmp_path, prefix=prefix, old_file=prefix == "")
    tokenizer, model, processor, _ = load(tmp_path, tiny_base, model_name="no-such-kind")
    assert type(model).__name__ == "LlavaLlamaForCausalLM"
    assert (len(tokenizer), processor is not None) == (1000, True)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)
    assert not any("lora" in name for name in model.state_dict())
    if words:
        assert model.model.reducer.policy.mu == model.model.reducer.config.mu


def test_the_adapter_is_added_to_the_weights_it_names_and_to_no_other(tiny_llava, tiny_base, tmp_path):
    write_lora(tiny_llava()[1], tmp_path)
    adapter = load_file(tmp_path / "adapter_model.safetensors")
    down, up = (adapter[f"base_model.model.{Q_PROJ}.lora_{part}.weight"] for part in "AB")
    base, merged = load_file(tiny_base / "model.safetensors"), load(tmp_path, tiny_base)[1].state_dict()
    expected = base[f"{Q_PROJ}.weight"] + 8 / 4 * up @ down
    torch.testing.assert_close(merged[f"{Q_PROJ}.weight"], expected)
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])


def test_a_tower_inside_the_model_is_not_adapted_although_its_layers_have_the_same_names(
    tiny_llava, tmp_path
):
    tokenizer, model, _ = tiny_llava()
    model.config.unfreeze_mm_vision_tower = True
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    tower = {name: value.clone() for name, value in model.model.vision_tower.state_dict().items()}
    (tmp_path / "lora").mkdir()
    expected = write_lora(model, tmp_path / "lora")
    loaded = load(tmp_path / "lora", tmp_path / "base")[1]
    torch.testing.assert_close(logits(loaded), expected, atol=1e-4, rtol=0)
    for name, value in loaded.model.vision_tower.state_dict().items():
        assert torch.equal(value, tower[name])


def test_a_llava_base_gives_its_projector_only_where_the_directory_brings_none(tiny_llava, tmp_path):
    tokenizer, model, _ = tiny_llava()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "lora").mkdir()
    expected = write_lora(model, tmp_path / "lora")
    torch.testing.assert_close(
        logits(load(tmp_path / "lora", tmp_path / "base")[1]), expected, atol=1e-4, rtol=0
    )
    torch.save({}, tmp_path / "lora/non_lora_trainables.bin")
    projector = load(tmp_path / "lora", tmp_path / "base")[1].model.mm_projector.state_dict()
    base = load_file(tmp_path / "base/model.safetensors")
    assert all(torch.equal(value, base[f"model.mm_projector.{name}"]) for name, value in projector.items())


def damaged(tiny_llava, tmp_path, change):
    write_lora(tiny_llava()[1], tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    save_file(change(weights), tmp_path / "adapter_model.safetensors")


def test_an_adapter_weight_that_is_missing_or_left_over_is_listed(tiny_llava, tiny_base, tmp_path):
    name = f"base_model.model.{Q_PROJ}.lora_A.weight"
    damaged(tiny_llava, tmp_path, lambda weights: {key: weights[key] for key in weights if key != name})
    with pytest.raises(
        ValueError, match=r"missing \['base_model.model.model.layers.0.self_attn.q_proj.lora_A"
    ):
        load(tmp_path, tiny_base)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    extra = {name.replace("layers.0", "layers.9"): torch.zeros(4, 64), name: torch.zeros(4, 64)}
    save_file({**weights, **extra}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"unexpected \['base_model.model.model.layers.9"):
        load(tmp_path, tiny_base)


def test_an_incomplete_lora_directory_says_what_is_missing(tiny_llava, tiny_base, tmp_path):
    write_lora(tiny_llava()[1], tmp_path)
    with pytest.raises(ValueError, match=r"is a LoRA directory, which was trained on .*; name its language"):
        load(tmp_path)
    others = torch.load(tmp_path / "non_lora_trainables.bin", weights_only=True)
    half = {name: value for name, value in others.items() if "mm_projector.0" in name}
    torch.save(half, tmp_path / "non_lora_trainables.bin")
    with pytest.raises(ValueError, match=r"missing \['model.mm_projector.2"):
        load(tmp_path, tiny_base)
    (tmp_path / "non_lora_trainables.bin").unlink()
    with pytest.raises(ValueError, match=r"holds no non_lora_trainables.bin"):
        load(tmp_path, tiny_base)
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save(others, tmp_path / "non_lora_trainables.bin")
    with pytest.raises(ValueError, match=r"no adapter weights: expected adapter_model.safetensors or"):
        load(tmp_path, tiny_base)


def test_a_base_of_another_size_and_a_base_that_is_itself_an_adapter_are_refused(
    tiny_llava, tiny_base, tmp_path
):
    write_lora(tiny_llava()[1], tmp_path)
    with pytest.raises(ValueError, match="is itself a LoRA directory"):
        load(tmp_path, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(ValueError, match=r"was not trained on the base .*num_hidden_layers=5 \(base: 4\)"):
        load(tmp_path, tiny_base)


def test_another_kind_of_adapter_is_refused(tiny_llava, tiny_base, tmp_path):
    write_lora(tiny_llava()[1], tmp_path)
    fields = {"peft_type": "IA3", "task_type": "CAUSAL_LM", "target_modules": ["k_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**fields, "feedforward_modules": []}))
    with pytest.raises(ValueError, match=r"describes a .*IA3 adapter; expected LORA"):
        load(tmp_path, tiny_base)


def test_merging_writes_a_full_checkpoint_with_the_same_logits(tiny_llava, tiny_base, tmp_path):
    (tmp_path / "lora").mkdir()
    expected = write_lora(tiny_llava(*DPN)[1], tmp_path / "lora")
    words = ["--model-path", str(tmp_path / "lora"), "--model-base", str(tiny_base), "--save-model-path"]
    merge([*words, str(tmp_path / "gpt-merged"), "--dtype", "float32"])
    model = load(tmp_path / "gpt-merged")[1]
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=0)
    merge([*words, str(tmp_path / "half")])
    assert load_file(tmp_path / "half/model.safetensors")["lm_head.weight"].dtype == torch.float16
    with pytest.raises(ValueError, match="exists already and isn't empty"):
        merge([*words, str(tmp_path / "half")])


def test_a_base_with_another_name_than_the_adapter_was_trained_on_is_mentioned(
    tiny_llava, tiny_base, tmp_path, caplog
):
    write_lora(tiny_llava()[1], tmp_path)
    file = tmp_path / "adapter_config.json"
    for name, is_said in (("somewhere/other", True), (f"elsewhere/{Path(tiny_base).name}", False)):
        file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": name}))
        caplog.clear()
        load(tmp_path, tiny_base)
        assert (f"was trained on {name}" in caplog.text) == is_said
