import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llava.model.config import LlavaConfig
from llava.model.reduction import parse_reduction
from llava.train import estimate as module
from llava.train.__main__ import main
from llava.train.arguments import parse
from llava.train.estimate import Load, estimate, expected_keep
from llava.train.footprint import (
    Counts,
    Engine,
    activation_bytes,
    checkpoint_bytes,
    count_parameters,
    held_bytes,
)
from llava.train.train import _build, prepare

D, M, V = 64, 176, 100
CONFIG = LlavaConfig(
    hidden_size=D, intermediate_size=M, num_hidden_layers=4, num_attention_heads=4, vocab_size=V
)
COUNTS = Counts({"vision tower": [100, 0], "language model": [1000, 1000]}, CONFIG)


def kept_by_autograd(dtype, *, is_autocast, is_checkpointed, num_tokens=96):
    """Bytes that autograd keeps of a decoder's layers for one sequence, weights aside."""
    model = LlamaForCausalLM(LlamaConfig(**CONFIG.to_diff_dict() | {"model_type": "llama"})).to(dtype).train()
    if is_checkpointed:
        model.gradient_checkpointing_enable()
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=is_autocast),
    ):
        model.model(torch.zeros(1, num_tokens, dtype=torch.long), use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize(
    ("dtype", "is_autocast", "is_checkpointed"),
    [
        (torch.bfloat16, False, False),
        (torch.float32, False, False),
        (torch.float32, True, False),
        (torch.float32, False, True),
    ],
)
def test_activations_are_near_what_autograd_keeps(dtype, is_autocast, is_checkpointed):
    measured = kept_by_autograd(dtype, is_autocast=is_autocast, is_checkpointed=is_checkpointed)
    is_half = is_autocast or dtype == torch.bfloat16
    computed = activation_bytes(
        [96] * 4,
        CONFIG,
        num_learned=0,
        is_half=is_half,
        is_autocast=is_autocast,
        is_checkpointed=is_checkpointed,
    )
    # Beside what is kept, the peak has the gradients of one layer and, with checkpoints, that layer again.
    alone = 96 * (2 if is_half else 4) * (4 * D + 3 * M)
    if is_checkpointed:
        alone += 96 * (40 * D + 16 * M)
    assert computed - alone == pytest.approx(measured, rel=0.15)


def test_zero_3_spreads_weights_gradients_and_optimizer():
    whole = held_bytes(COUNTS, Engine(stage=0, world_size=1, is_half=False))
    assert whole.held == {"weights": 4400, "gradients": 4000, "optimizer": 8000}
    spread = held_bytes(COUNTS, Engine(stage=3, world_size=4, is_half=True)).held
    assert spread["weights"] == 1100 * 2 / 4
    assert spread["gradients"] == 1000 * 2 / 4
    assert spread["optimizer"] == 1000 * 12 / 4


def test_zero_2_keeps_all_weights_on_every_gpu():
    held = held_bytes(COUNTS, Engine(stage=2, world_size=4, is_half=True)).held
    assert (held["weights"], held["optimizer"]) == (1100 * 2, 1000 * 12 / 4)


def test_what_is_offloaded_goes_to_the_host():
    engine = Engine(stage=3, world_size=2, is_half=True, offloads_optimizer=True, offloads_parameters=True)
    found = held_bytes(COUNTS, engine)
    assert {name: found.held[name] for name in ("weights", "gradients", "optimizer")} == {
        "weights": 0,
        "gradients": 0,
        "optimizer": 0,
    }
    assert found.host == 1100 * 2 / 2 + 1000 * (12 + 4) / 2


def test_the_stage_and_its_offloading_are_read_from_the_deepspeed_file(command, tmp_path):
    for name, offloads in (("zero2", False), ("zero3", False), ("zero3_offload", True)):
        words = ["--estimate", "True", "--deepspeed", f"scripts/{name}.json"]
        engine = Engine.of(parse(command(tmp_path, *words)).training, 8)
        assert (engine.stage, engine.offloads_optimizer) == (int(name[4]), offloads)


@pytest.mark.parametrize(
    "words", [["--reduction", "dpn", "preset=policy", "layers=1,2"], ["--lora_enable", "True"]]
)
def test_parameters_are_counted_as_they_will_be_built(words, command, tmp_path):
    job = prepare(command(tmp_path, *words))
    counts = count_parameters(job.arguments, job.reduction)
    _, model, _ = _build(job)
    adapters = counts.parts["LoRA adapter"][0]
    assert counts.total - adapters == sum(parameter.numel() for parameter in model.parameters())
    assert (adapters > 0) == ("--lora_enable" in words)


def test_a_checkpoint_is_as_large_as_estimated(command, tmp_path):
    words = command(tmp_path, "--save_strategy", "steps", "--save_steps", "2")
    job = prepare(words)
    main(words)
    counts = count_parameters(job.arguments, job.reduction)
    checkpoint, result = checkpoint_bytes(
        counts, job.arguments.training, Engine.of(job.arguments.training, 1)
    )
    folder = tmp_path / "checkpoint-2"
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert sizes["model.safetensors"] == pytest.approx(result, rel=0.1)
    assert sizes["model.safetensors"] + sizes["optimizer.pt"] == pytest.approx(checkpoint, rel=0.1)


def words_of_keep(*words):
    reduction = parse_reduction(["dpn", "layers=1,2", *words])
    assert reduction is not None
    return [round(share, 3) for share in expected_keep(reduction, COUNTS)]


def test_expected_routes_follow_from_what_the_reduction_asks_for():
    assert words_of_keep("preset=paper", "target=1") == [1, 0.5, 0.25, 0.25]
    assert words_of_keep("preset=policy") == [
        1,
        0.583,
        0.34,
        0.34,
    ]  # experts drawn alike: (1 + 1/2 + 1/4) / 3
    forced = words_of_keep("train_choice=static", "eval_choice=static", "route=1x2,2x2")
    assert forced == [1, 0.5, 0.125, 0.125]
    cheap, dear = words_of_keep("preset=policy", "budget=0.3"), words_of_keep("preset=policy", "budget=0.8")
    assert all(few <= many for few, many in zip(cheap, dear, strict=True))
    assert cheap != dear


def test_the_longest_batch_of_the_data_is_what_is_estimated(command, tmp_path):
    arguments = parse(command(tmp_path, "--group_by_modality_length", "True"))
    job = prepare(command(tmp_path))
    load = module.batch_load(arguments, job.records, per_image=16, world_size=1)
    assert load.visual_tokens == 3 * 16
    assert 0 < load.learned_tokens < load.text_tokens
    assert module.batch_load(arguments, [], per_image=16, world_size=1) == Load(
        3 * 16, 3 * (512 - 16), 3 * (512 - 16) // 2
    )


def test_pooling_lowers_the_estimate_and_the_worst_case_is_named(command, tmp_path):
    words = command(
        tmp_path, "--reduction", "dpn", "preset=paper", "layers=1,2", "--gradient_checkpointing", "True"
    )
    job = prepare(words)
    found = estimate(job.arguments, job.reduction, job.records, world_size=1)
    assert found.expected.total < found.unpooled.total
    assert "activations, nothing pooled" in module.describe(found, job.arguments)


def test_the_estimate_needs_neither_data_nor_deepspeed_nor_a_gpu(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["--data_path", "nowhere.json", "--deepspeed", "scripts/zero3.json", "--bf16", "True"]
    main(command(tmp_path / "out", *words, "--estimate", "True", "--estimate_gpus", "16"))
    shown = capsys.readouterr().out
    assert "estimate per GPU: 16 GPU(s), ZeRO-3, micro batch 3 (1,536 tokens, 48 of them visual)" in shown
    assert "there is" in shown
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("there", "sharers", "message"),
    [(1e12, 1, "fits"), (1e3, 1, "IT WILL HARDLY FIT. Lower the micro batch"), (1e12, 2, "for 2 processes")],
)
def test_the_estimate_is_compared_with_what_is_there(there, sharers, message, command, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "memory_there", lambda: (there, "a card", sharers))
    job = prepare(command(tmp_path))
    found = estimate(job.arguments, job.reduction, job.records, world_size=1)
    assert message in module.verdict(found)


def test_a_deepspeed_file_that_is_not_there_is_named(command, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command(tmp_path, "--estimate", "True", "--deepspeed", "scripts/zero9.json"))
    assert "--deepspeed scripts/zero9.json can't be read" in str(ended.value.code)


def test_an_estimate_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["--estimate", "--output_dir", str(tmp_path)])
    assert "--model_name_or_path is missing: name the base language model" in str(ended.value.code)
