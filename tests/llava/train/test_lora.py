import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers.quantizers.quantizers_utils import should_convert_module

from llava.model.builder import load_pretrained_model
from llava.model.merge_lora import main as merge
from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.lora import add_adapter, load_adapter, quantization, target_names
from llava.train.routing_row import split_off
from llava.train.train import _build, prepare, run
from llava.train.trainable import set_trainable

LORA = ["--lora_enable", "True", "--lora_r", "4", "--lora_alpha", "8", "--mm_projector_lr", "1e-4"]
DPN = ["--reduction", "dpn", "preset=paper", "layers=1,2"]
EVERY_STEP = ["--save_strategy", "steps", "--save_steps", "1"]
LINEAR_LAYERS = {
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
}


EMBEDDING = "base_model.model.model.embed_tokens.weight"


def read(folder):
    """Give the tensors of a LoRA directory: adapter, and all else that learned."""
    others = torch.load(folder / "non_lora_trainables.bin", weights_only=True)
    return load_file(folder / "adapter_model.safetensors"), others


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """The output folder of a LoRA run with a reduction and a checkpoint after each of two steps."""
    output = tmp_path_factory.mktemp("lora")
    run(prepare(command(output, *LORA, *DPN, *EVERY_STEP)))
    return output


@pytest.fixture(scope="module")
def dense(command, tmp_path_factory):
    """The output folder of a LoRA run without a reduction, with the base in bfloat16."""
    output = tmp_path_factory.mktemp("lora-dense")
    run(prepare(command(output, *LORA, "--bf16", "True", "--gradient_checkpointing", "True")))
    return output


def test_the_adapter_has_pefts_names_for_every_linear_layer_of_the_decoder(dense):
    adapter, _ = read(dense)
    assert adapter.keys() == {
        f"base_model.model.model.layers.{index}.{layer}.lora_{side}.weight"
        for index in range(4)
        for layer in LINEAR_LAYERS
        for side in "AB"
    }
    config = json.loads((dense / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.05)
    assert (config["bias"], config["task_type"]) == ("none", "CAUSAL_LM")
    assert set(config["target_modules"]) == {layer.partition(".")[2] for layer in LINEAR_LAYERS}


def test_projector_and_reducer_are_saved_whole_beside_the_adapter(trained, dense):
    projector = {
        f"base_model.model.model.mm_projector.{layer}.{kind}"
        for layer in (0, 2)
        for kind in ("weight", "bias")
    }
    assert read(dense)[1].keys() == projector
    others = read(trained)[1].keys()
    assert projector < others
    assert {name for name in others - projector if ".reducer." not in name} == {EMBEDDING}


def test_a_lora_directory_holds_the_models_config_and_no_base_weights(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["mm_projector_type"] == "mlp2x_gelu"
    assert config["mm_projector_lr"] == 1e-4
    assert config["reduction"]["layers"] == [1, 2]
    assert not list(trained.glob("model*.safetensors"))


def test_adapter_projector_and_reducer_learn(trained):
    (adapter, others), (earlier, others_earlier) = read(trained), read(trained / "checkpoint-1")
    assert all(adapter[name].any() for name in adapter if "lora_B" in name)
    assert all(not torch.equal(adapter[name], earlier[name]) for name in adapter if "lora_B" in name)
    for part in ("mm_projector.", "reducer."):
        names = [name for name in others if part in name]
        assert any(not torch.equal(others[name], others_earlier[name]) for name in names), part


def test_a_bf16_run_keeps_what_learns_in_float32(dense):
    adapter, others = read(dense)
    assert {tensor.dtype for tensor in (*adapter.values(), *others.values())} == {torch.float32}


def test_a_resumed_lora_run_ends_like_an_uninterrupted_one(trained, command, tmp_path, caplog):
    shutil.copytree(trained / "checkpoint-1", tmp_path / "checkpoint-1")
    shutil.copy(trained / "run.json", tmp_path)
    with caplog.at_level(logging.INFO):
        run(prepare(command(tmp_path, *LORA, *DPN, *EVERY_STEP)))
    assert f"going on from {tmp_path / 'checkpoint-1'}" in caplog.text
    for again, before in zip(read(tmp_path), read(trained), strict=True):
        assert again.keys() == before.keys()
        assert all(torch.equal(again[name], before[name]) for name in before)


def test_an_interrupted_final_save_is_made_good_from_the_last_checkpoint(trained, command, tmp_path):
    shutil.copytree(trained / "checkpoint-2", tmp_path / "checkpoint-2")
    shutil.copy(trained / "run.json", tmp_path)
    run(prepare(command(tmp_path, *LORA, *DPN, *EVERY_STEP)))
    for again, before in zip(read(tmp_path), read(trained), strict=True):
        assert all(torch.equal(again[name], before[name]) for name in before)
    assert (tmp_path / "adapter_config.json").is_file()
    assert (tmp_path / "config.json").is_file()


def test_the_loaded_model_is_the_base_with_the_product_of_the_adapter_added(trained, world):
    _, model, _, _ = load_pretrained_model(
        str(trained), str(world / "base"), "llava-lora", device="cpu", device_map=None
    )
    base = load_file(world / "base" / "model.safetensors")
    adapter, others = read(trained)
    for index in range(4):
        name = f"model.layers.{index}.mlp.up_proj"
        low, high = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        expected = base[f"{name}.weight"] + 8 / 4 * high @ low
        assert torch.allclose(model.get_submodule(name).weight, expected, atol=1e-6)
    for name, tensor in others.items():
        there = model.state_dict()[name.removeprefix("base_model.model.")]
        assert torch.equal(there[-1:] if name == EMBEDDING else there, tensor), name


def test_adapters_stay_off_a_loaded_tower_whose_layers_have_the_decoders_names(tiny_llava):
    _, model, _ = tiny_llava("dpn", "preset=paper", "layers=1,2")
    tower = [name for name, _ in model.named_modules() if name.startswith("model.vision_tower.")]
    assert any(name.endswith(".q_proj") for name in tower)
    assert target_names(model) == sorted(layer.partition(".")[2] for layer in LINEAR_LAYERS)
    adapted = add_adapter(model, TrainingArguments(output_dir="out", use_cpu=True, lora_r=2))
    with_adapter = {name.partition(".lora_")[0] for name, _ in adapted.named_parameters() if ".lora_" in name}
    assert len(with_adapter) == 4 * len(LINEAR_LAYERS)
    assert all(".model.layers." in name and "vision_tower" not in name for name in with_adapter)


@pytest.mark.parametrize(("mode", "learns"), [("none", set()), ("lora_only", {"base_layer.bias"})])
def test_the_biases_of_adapted_layers_learn_on_demand(mode, learns, tmp_path):
    model = torch.nn.Module()
    tower = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(4, 4)})
    decoder = {"q_proj": torch.nn.Linear(4, 4), "norm": torch.nn.LayerNorm(4), "vision_tower": tower}
    model.model = torch.nn.ModuleDict(decoder)
    model.config = {"model_type": "llama"}
    model.prepare_inputs_for_generation = None
    training = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, lora_enable=True, lora_r=2, lora_bias=mode
    )
    adapted = add_adapter(model, training)
    set_trainable(adapted, ModelArguments(), training)
    biases = {name for name, p in adapted.named_parameters() if p.requires_grad and name.endswith("bias")}
    assert biases == {f"base_model.model.model.q_proj.{name}" for name in learns}


def test_sixteen_bits_quantise_nothing(tmp_path):
    assert quantization(TrainingArguments(output_dir=str(tmp_path), use_cpu=True), torch.float32) == {}


def test_four_bits_are_upstreams_settings_and_spare_all_that_learns(tmp_path):
    flags = {"bits": 4, "quant_type": "fp4", "double_quant": False}
    training = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **flags)
    options = quantization(training, torch.bfloat16)
    config = options["quantization_config"]
    assert (config.load_in_4bit, config.load_in_8bit) == (True, False)
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("fp4", False)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    spared = config.llm_int8_skip_modules
    for name in ("mm_projector.0", "vision_tower.vision_tower.encoder.layers.0.mlp.fc1", "reducer.router.0"):
        assert not should_convert_module(f"model.{name}", spared)
    assert should_convert_module("model.layers.0.mlp.up_proj", spared)
    assert options["device_map"] == {"": torch.device("cpu")}


def test_eight_bits_have_upstreams_threshold(tmp_path):
    training = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, bits=8)
    config = quantization(training, torch.float16)["quantization_config"]
    assert (config.load_in_8bit, config.load_in_4bit, config.llm_int8_threshold) == (True, False, 6.0)


def test_the_routing_tokens_embedding_learns_and_no_others(trained, world):
    row, earlier = (read(folder)[1][EMBEDDING] for folder in (trained, trained / "checkpoint-1"))
    assert row.shape == (1, 32)
    before = load_file(world / "base" / "model.safetensors")["model.embed_tokens.weight"]
    assert not torch.equal(row, earlier)
    assert not torch.allclose(earlier[0], before.mean(0))  # what it began as
    _, model, _, _ = load_pretrained_model(
        str(trained), str(world / "base"), "llava-lora", device="cpu", device_map=None
    )
    assert torch.equal(model.model.embed_tokens.weight[:-1], before)


POLICY = ["--reduction", "dpn", "preset=policy", "layers=1,2", "budget=0.4", "mu_step=0.5"]


@pytest.mark.parametrize("reduction", [DPN, POLICY, [*DPN, "--mm_use_im_start_end", "True"]])
def test_in_training_loaded_and_merged_a_model_predicts_the_same(reduction, world, command, tmp_path):
    words = command(tmp_path / "lora", *LORA, *reduction)
    run(prepare(words))
    job = prepare(words)
    _, base, _ = _build(job)
    adapted = add_adapter(base, job.arguments.training)
    set_trainable(adapted, job.arguments.model, job.arguments.training)
    load_adapter(adapted, tmp_path / "lora")
    where = {"device": "cpu", "device_map": None}
    _, loaded, _, _ = load_pretrained_model(
        str(tmp_path / "lora"), str(world / "base"), "llava-lora", **where
    )
    words = ["--model-path", tmp_path / "lora", "--model-base", world / "base", "--dtype", "float32"]
    merge([*map(str, words), "--save-model-path", str(tmp_path / "merged")])
    _, merged, _, _ = load_pretrained_model(str(tmp_path / "merged"), None, "llava", **where)
    token = loaded.config.router_token_id
    tail = [] if token is None else [token]
    ids = torch.tensor([[1, -200, 5, 6, *tail, 7]])
    pixels = torch.randn(1, 3, 32, 32)
    first, *others = (
        model.eval().float()(input_ids=ids, images=pixels).logits.detach() for model in (base, loaded, merged)
    )
    assert all(torch.allclose(first, logits, atol=1e-4) for logits in others)


def test_the_policys_running_state_is_in_the_result(command, tmp_path, world):
    run(prepare(command(tmp_path, *LORA, *POLICY)))
    saved = read(tmp_path)[1]
    mu = saved["base_model.model.model.reducer.policy.mu"]
    assert mu != 0.5  # where it began
    assert saved["base_model.model.model.reducer.policy.num_observed"] > 0
    assert "base_model.model.model.reducer.policy.value.weight" in saved
    _, model, _, _ = load_pretrained_model(
        str(tmp_path), str(world / "base"), "llava-lora", device="cpu", device_map=None
    )
    assert model.model.reducer.policy.mu == mu


def test_only_the_tokens_embedding_is_replaced():
    embedding = torch.nn.Embedding(5, 3)
    embedding.weight.requires_grad_(False)
    split_off(embedding, 4)
    with torch.no_grad():
        embedding.router_row += 1
    ids = torch.tensor([[4, 0], [1, 4]])
    out = embedding(ids)
    assert torch.equal(out[0, 0], embedding.weight[4] + 1)
    assert torch.equal(out[0, 1], embedding.weight[0])
    out.sum().backward()
    assert torch.equal(embedding.router_row.grad, torch.full((3,), 2.0))
    embedding(ids[:1, 1:]).sum().backward()  # a batch without the token still reaches it, with zeros
    assert torch.equal(embedding.router_row.grad, torch.full((3,), 2.0))
