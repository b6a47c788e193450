"""Every kind of checkpoint directory loads, decided by its files; what doesn't fit is listed in an error."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaForCausalLM

from llava.model import files
from llava.model.builder import load_pretrained_model
from llava.model.config import read_config
from llava.model.loading import load_weights
from llava.train.checkpoint import save_projector
from tests.golden_data import golden_root
from tests.llava.model.prompts import PROMPTS, make_batch

TOWER = "model.vision_tower.vision_tower."


def load(path, base=None, **options):
    options = {"device": "cpu", "device_map": None, **options}
    return load_pretrained_model(str(path), None if base is None else str(base), **options)


def logits(model):
    return model(**{**make_batch(PROMPTS), "labels": None}).logits


def edit(folder, name="config.json", **fields):
    """Change fields of a json file; None removes one."""
    content = json.loads((folder / name).read_text()) | fields
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / name).write_text(json.dumps(kept))


@pytest.fixture
def checkpoint(tiny_llava, tmp_path):
    """Give a saved LLaVA checkpoint: folder, model."""
    tokenizer, model, _ = tiny_llava()
    folder = tmp_path / "gpt-mpt-lora-without-the-word"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model.eval()


@pytest.fixture
def unfrozen(checkpoint):
    """Give the same with another tower inside, which the checkpoint says is to be used."""
    folder, model = checkpoint
    model.config.unfreeze_mm_vision_tower = True
    nn.init.normal_(model.model.vision_tower.vision_tower.embeddings.class_embedding)
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("model_type", ["llava", "llava_llama", "llama"])
@pytest.mark.parametrize("name", [None, "llava-lora-mpt", "gpt2"])
def test_config_json_decides_and_no_name_does(checkpoint, model_type, name):
    folder, model = checkpoint
    edit(folder, model_type=model_type, architectures=["LlavaLlamaForCausalLM"])
    _, loaded, processor, _ = load(folder, model_name=name)
    assert torch.equal(logits(loaded), logits(model))
    assert processor is not None
    assert loaded.config.model_type == "llava_llama"


@pytest.mark.parametrize("model_type", ["llava_mpt", "llava_mistral", "qwen2"])
def test_another_decoder_is_refused_before_its_weights_are_read(checkpoint, model_type):
    edit(checkpoint[0], model_type=model_type)
    with pytest.raises(ValueError, match=r"expected one of llava, llava_llama, llama\. Only Llama decoders"):
        load(checkpoint[0])


def test_a_multi_scale_tower_is_refused_instead_of_ignored(checkpoint):
    edit(checkpoint[0], s2=True, s2_scales="336,672,1008")
    with pytest.raises(ValueError, match=r"asks for a multi-scale tower \(s2\)"):
        load(checkpoint[0])


def test_a_plain_language_model_loads_without_an_image_processor(tiny_base):
    tokenizer, model, processor, _ = load(tiny_base)
    ids = tokenizer("hello there", return_tensors="pt").input_ids
    theirs = LlamaForCausalLM.from_pretrained(tiny_base)
    assert processor is None
    torch.testing.assert_close(model(input_ids=ids).logits, theirs(input_ids=ids).logits)


def test_old_shards_with_rotary_buffers_are_the_weights_they_hold(monkeypatch):
    monkeypatch.chdir(golden_root() / "common")
    model = load("llava-tiny")[1]
    weights = {}
    for shard in (golden_root() / "common/llava-tiny").glob("pytorch_model-*.bin"):
        weights |= torch.load(shard, weights_only=True)
    assert sum("rotary_emb.inv_freq" in name for name in weights) == 4
    state = model.state_dict()
    learned = [name for name in state if TOWER not in name]
    assert set(weights) - set(learned) == {name for name in weights if "rotary_emb" in name}
    assert all(torch.equal(state[name], weights[name]) for name in learned)


def test_fields_of_old_configs_are_tolerated_and_generation_leftovers_do_not_stop_saving(
    checkpoint, tmp_path
):
    folder, model = checkpoint
    old = {"mm_resampler_type": None, "tune_mm_vision_resampler": False, "use_mm_proj": True}
    content = json.loads((folder / "config.json").read_text()) | old
    content |= {"max_length": 4096, "pretraining_tp": 1, "rope_scaling": None, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(content))
    tokenizer, loaded, _, _ = load(folder)
    loaded.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")[1]
    assert torch.equal(logits(again), logits(model))
    assert again.config.use_mm_proj is True
    assert again.dtype == torch.float32


@pytest.mark.parametrize("fields", [{"temperature": 0.9, "top_p": 0.6}, {"top_k": 3, "do_sample": False}])
def test_a_contradictory_generation_config_is_repaired_with_a_notice(checkpoint, tmp_path, caplog, fields):
    folder, _ = checkpoint
    edit(folder, "generation_config.json", **fields)
    model = load(folder)[1]
    assert f"generation_config sets {', '.join(list(fields)[:2]).removesuffix(', do_sample')}" in caplog.text
    model.save_pretrained(tmp_path / "again")
    assert not model.generation_config.do_sample


@pytest.mark.parametrize("wrapper", ["model.", "", "base_model.model.model.", "module.model."])
def test_a_projector_file_is_read_under_any_wrapper_and_its_base_may_be_a_llava_itself(
    checkpoint, tiny_base, tmp_path, wrapper
):
    folder, model = checkpoint
    save_projector(model, tmp_path / "stage1", is_writer=True)
    file = tmp_path / "stage1/mm_projector.bin"
    weights = torch.load(file, weights_only=True)
    torch.save({wrapper + name.removeprefix("model."): value for name, value in weights.items()}, file)
    assert torch.equal(logits(load(tmp_path / "stage1", tiny_base)[1]), logits(model))
    linear = {name: torch.ones(5) for name in load_file(folder / "model.safetensors") if "projector" in name}
    others = {
        key: value for key, value in load_file(folder / "model.safetensors").items() if key not in linear
    }
    save_file({**others, **linear}, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(logits(load(tmp_path / "stage1", folder)[1]), logits(model))


def test_a_projector_that_does_not_fit_is_listed_name_by_name(checkpoint, tiny_base, tmp_path):
    save_projector(checkpoint[1], tmp_path, is_writer=True)
    file = tmp_path / "mm_projector.bin"
    weights = torch.load(file, weights_only=True)
    cases = {
        r"missing \['model.mm_projector.2.bias'\]": {k: v for k, v in weights.items() if "2.bias" not in k},
        r"unexpected \['model.mm_projector.4.bias'\]": weights | {"mm_projector.4.bias": torch.zeros(64)},
        r"of another shape \['model.mm_projector.0.weight \(64, 7\) instead of \(64, 32\)'\]": weights
        | {"model.mm_projector.0.weight": torch.zeros(64, 7)},
    }
    for message, content in cases.items():
        torch.save(content, file)
        with pytest.raises(ValueError, match=message):
            load(tmp_path, tiny_base)


def test_trained_start_and_end_embeddings_come_with_the_projector(tiny_llava, tiny_base, tmp_path):
    _, model, _ = tiny_llava(mm_use_im_start_end=True)
    with torch.no_grad():
        model.model.embed_tokens.weight[-2:] = torch.randn(2, 64)
    save_projector(model, tmp_path, is_writer=True)
    weights = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    rows = model.model.embed_tokens.weight.detach()
    for embedding in (rows, rows[-2:]):
        torch.save({**weights, "model.embed_tokens.weight": embedding.clone()}, tmp_path / "mm_projector.bin")
        tokenizer, loaded, _, _ = load(tmp_path, tiny_base)
        assert torch.equal(loaded.model.embed_tokens.weight, rows)
        assert tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"]) == [1000, 1001]
    assert torch.equal(logits(loaded), logits(model.eval()))


def test_a_base_is_demanded_and_refused_where_the_files_say_so(checkpoint, tiny_base, tmp_path):
    folder, model = checkpoint
    save_projector(model, tmp_path / "stage1", is_writer=True)
    with pytest.raises(ValueError, match="is a projector-only directory; name its language model"):
        load(tmp_path / "stage1")
    with pytest.raises(ValueError, match="it is a full checkpoint: leave model_base out"):
        load(folder, tiny_base)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds no weights: expected one of model.safetensors, "):
        load(folder)


class Attack:
    def __reduce__(self):
        return (print, ("code from a checkpoint was executed",))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "mm_projector.bin", "non_lora_trainables.bin", "adapter_model.bin"]
)
def test_pickled_code_is_never_executed(checkpoint, tiny_base, tmp_path, capsys, name):
    folder, model = checkpoint
    base = None if name == "pytorch_model.bin" else tiny_base
    if name in ("non_lora_trainables.bin", "adapter_model.bin"):
        others = {key: value for key, value in model.state_dict().items() if "mm_projector" in key}
        torch.save(others, folder / "non_lora_trainables.bin")
        fields = {"peft_type": "LORA", "target_modules": ["q_proj"], "base_model_name_or_path": "x"}
        (folder / "adapter_config.json").write_text(json.dumps(fields))
    (folder / "model.safetensors").unlink()
    torch.save({"model.mm_projector.0.weight": Attack()}, folder / name)
    with pytest.raises(ValueError, match=r"can't be read"):
        load(folder, base)
    assert "executed" not in capsys.readouterr().out


def test_a_tower_inside_is_passed_over_with_a_notice_unless_it_was_trained(unfrozen, caplog):
    folder, model = unfrozen
    assert torch.equal(logits(load(folder)[1]), logits(model))
    edit(folder, unfreeze_mm_vision_tower=False)
    passed_over = load(folder)[1]
    assert "holds vision weights that aren't used" in caplog.text
    assert not torch.equal(logits(passed_over), logits(model))
    theirs = load_file(golden_root() / "common/clip-tiny/model.safetensors")
    name = "vision_model.embeddings.class_embedding"
    tower = passed_over.model.vision_tower.vision_tower
    assert torch.equal(tower.embeddings.class_embedding, theirs[name])


def test_a_trained_tower_is_read_and_written_under_legacy_names_wherever_it_came_from(unfrozen, tmp_path):
    folder, model = unfrozen
    legacy = load_file(folder / "model.safetensors")
    assert f"{TOWER}vision_model.embeddings.class_embedding" in legacy
    short = {name.replace("vision_model.", ""): value for name, value in legacy.items()}
    for number, names in enumerate([legacy, short]):
        save_file(names, folder / "model.safetensors", metadata={"format": "pt"})
        loaded = load(folder)[1]
        assert torch.equal(logits(loaded), logits(model))
        loaded.save_pretrained(tmp_path / str(number))
        assert set(load_file(tmp_path / str(number) / "model.safetensors")) == set(legacy)
    fresh = load(folder)[1]
    nn.init.zeros_(fresh.model.vision_tower.vision_tower.embeddings.class_embedding)
    assert fresh.load_state_dict(legacy) == ([], [])  # as the Trainer resumes
    assert torch.equal(logits(fresh), logits(model))


def test_a_trained_tower_that_is_not_there_is_missed(unfrozen):
    folder, _ = unfrozen
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.2.mlp.fc1.bias" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"missing \['model.vision_tower.vision_tower.*layers.2.mlp.fc1.bias'\]"
    ):
        load(folder)


def test_a_tower_that_is_not_there_says_how_to_use_the_weights_inside(unfrozen):
    folder, _ = unfrozen
    edit(folder, mm_vision_tower="gone/away/clip")
    with pytest.raises(ValueError, match=r"no such directory.*holds vision weights of its own. To use them"):
        load(folder)


def test_a_tower_inside_the_checkpoint_folder_is_found_from_anywhere(checkpoint, tmp_path, monkeypatch):
    folder, model = checkpoint
    shutil.copytree(golden_root() / "common/clip-tiny", folder / "my_tower", copy_function=shutil.copyfile)
    (folder / "my_tower").chmod(0o755)
    edit(folder, mm_vision_tower="my_tower")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(logits(load(folder.name)[1]), logits(model))


def test_an_incomplete_tower_is_refused(checkpoint, tmp_path):
    folder, _ = checkpoint
    shutil.copytree(golden_root() / "common/clip-tiny", tmp_path / "clip", copy_function=shutil.copyfile)
    (tmp_path / "clip").chmod(0o755)
    weights = load_file(tmp_path / "clip/model.safetensors")
    weights.pop("vision_model.pre_layrnorm.bias")
    save_file(weights, tmp_path / "clip/model.safetensors", metadata={"format": "pt"})
    edit(folder, mm_vision_tower=str(tmp_path / "clip"))
    with pytest.raises(ValueError, match=r"lacks the weights \['pre_layrnorm.bias'\]"):
        load(folder)


def test_loading_changes_no_global_state_and_shares_nothing_between_models(checkpoint):
    folder, _ = checkpoint
    torch.manual_seed(3)
    before = (
        torch.get_rng_state(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        nn.Linear.reset_parameters,
        nn.LayerNorm.reset_parameters,
    )
    first, second = load(folder)[1], load(folder, dtype=torch.bfloat16)[1]
    after = torch.get_rng_state()
    assert torch.equal(after, before[0])
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before[1:3]
    assert (nn.Linear.reset_parameters, nn.LayerNorm.reset_parameters) == before[3:]
    assert nn.Linear(4, 4).weight.abs().max() <= 0.5
    assert first.config is not second.config
    assert first.generation_config is not second.generation_config
    second.set_attn_implementation("eager")
    assert first.config._attn_implementation == "sdpa"


def test_a_configuration_given_to_two_models_stays_as_it_was(checkpoint):
    config = read_config(str(checkpoint[0]))
    models = [load_weights(str(checkpoint[0]), config, dtype=torch.float32, allow_missing=()) for _ in "ab"]
    assert len({id(model.config) for model in models} | {id(config)}) == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, torch.float32),
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"torch_dtype": "float16"}, torch.float16),
    ],
)
def test_the_dtype_is_what_was_asked_for_whatever_the_files_hold(checkpoint, options, expected):
    folder, model = checkpoint
    model.half().save_pretrained(folder)
    loaded = load(folder, **options)[1]
    assert {parameter.dtype for parameter in loaded.parameters()} == {expected}
    assert loaded.get_vision_tower().dtype == expected


def test_a_padded_vocabulary_is_never_cut_to_the_tokenizer(checkpoint):
    folder, model = checkpoint
    model.resize_token_embeddings(1024, mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer, loaded, _, _ = load(folder)
    assert (len(tokenizer), loaded.model.embed_tokens.num_embeddings) == (1000, 1024)
    edit(folder, mm_use_im_patch_token=None)  # upstream's default adds the token: kept
    tokenizer, loaded, _, _ = load(folder)
    assert (len(tokenizer), loaded.lm_head.out_features) == (1001, 1024)


def test_a_hub_that_does_not_answer_and_a_missing_base_are_user_errors(checkpoint, monkeypatch):
    with pytest.raises(ValueError, match="no checkpoint at nowhere"):
        load(checkpoint[0], "nowhere")

    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(files, "cached_file", unreachable)
    with pytest.raises(ValueError, match=r"can't look for adapter_config.json in owner/name: no network"):
        load("owner/name")
