"""Two ranks under ZeRO do what one process does with the same global batch, and save what it saves.

Tolerances: float32 sums over two ranks differ from one process's in their order alone; measured are 1e-6 to
1e-5 (relative) in losses, norms and weights over these steps. 1e-4 leaves room for another machine's kernels,
while a wrong rate, clipping or schedule moves the losses by ten times that and more (asserted below).
"""

import pytest
import torch

from llava.model.builder import load_pretrained_model
from llava.model.reduction import parse_reduction
from llava.train.build import build_for_training
from tests.llava.train.distributed.results import losses, weights

NEAR = {"rtol": 1e-5, "atol": 1e-4}
PAPER = ["dpn", "preset=paper", "layers=1,2", "min_tokens=2", "skip_below=2", "train_choice=argmax"]
POLICY = ["dpn", "preset=policy", "layers=1,2", "credit=later", "budget=0.5", "train_choice=argmax"]
REDUCTIONS = {"paper": PAPER, "policy": POLICY}
CASES = [
    ("zero2", "adamw_torch", "policy"),
    ("zero3", "adamw_torch", "paper"),
    ("zero3_offload", "sgd", "paper"),
]
RATES = {"sgd": "0.3", "adamw_torch": "1e-3"}


@pytest.fixture(scope="module")
def complete(world, tmp_path_factory):
    """A function that gives a checkpoint with everything in it, so that no run draws new weights."""
    made = {}

    def make(reduction):
        if reduction not in made:
            made[reduction] = tmp_path_factory.mktemp("complete")
            torch.manual_seed(1)
            tokenizer, model, _ = build_for_training(
                model_name_or_path=str(world / "base"),
                vision_tower=str(world / "tower"),
                mm_projector_type="mlp2x_gelu",
                mm_vision_select_layer=-2,
                mm_use_im_patch_token=False,
                reduction=parse_reduction(REDUCTIONS[reduction]),
            )
            model.save_pretrained(made[reduction])
            tokenizer.save_pretrained(made[reduction])
        return made[reduction]

    return make


@pytest.fixture(scope="module")
def train(ranks, in_order, complete, configs, tmp_path_factory):
    """A function that trains 4 steps of 8 samples, alone or under ZeRO, once for the same arguments."""
    done = {}

    def run(zero, optimizer, reduction, *words):
        key = (zero, optimizer, reduction, *words)
        if key not in done:
            output = tmp_path_factory.mktemp("trained")
            settings = [
                *("--model_name_or_path", complete(reduction), "--optim", optimizer, "--max_steps", 4),
                *("--learning_rate", RATES[optimizer], "--mm_projector_lr", "0.01", "--warmup_steps", 1),
                *("--lr_scheduler_type", "cosine", "--max_grad_norm", "0.5", "--weight_decay", "0.1"),
                *("--gradient_accumulation_steps", 2, "--save_strategy", "steps", "--save_steps", 4),
                *("--per_device_train_batch_size", 2 if zero else 4, *words),
                *(("--deepspeed", configs(zero)) if zero else ("--use_cpu", "True")),
            ]
            done[key] = output, ranks.run(in_order(output, *settings), ranks=2 if zero else 1)
        return done[key]

    return run


@pytest.mark.parametrize(("zero", "optimizer", "reduction"), CASES)
def test_losses_norms_rates_and_weights_are_those_of_one_process(zero, optimizer, reduction, train):
    alone, (one,) = train(None, optimizer, reduction)
    together, (first, second) = train(zero, optimizer, reduction)
    assert torch.allclose(losses(alone), losses(together), **NEAR)
    assert sorted(set(map(tuple, one.seen("rates")))) == sorted(set(map(tuple, first.seen("rates"))))
    assert first.seen("rates") == second.seen("rates")
    expected, found = weights(alone), weights(together)
    own = (
        "vision_tower.",
        "loss_window",
        "num_observed",
    )  # what DeepSpeed saves along, what is each rank's own
    trained = [name for name in expected if not any(part in name for part in own)]
    assert not [name for name in trained if not torch.allclose(expected[name], found[name], **NEAR)]


@pytest.mark.parametrize(
    "words",
    [("--max_grad_norm", "0"), ("--mm_projector_lr", "0.3"), ("--lr_scheduler_type", "constant")],
    ids=lambda words: words[0],
)
def test_what_is_compared_feels_clipping_rates_and_schedule(words, train):
    alone, _ = train(None, "sgd", "paper")
    other, _ = train(None, "sgd", "paper", *words)
    assert (losses(alone) - losses(other)).abs().max() > 10 * NEAR["atol"]


def test_the_projector_has_its_own_rate_and_all_rates_follow_the_schedule(train):
    _, (rank, _) = train("zero3_offload", "sgd", "paper")
    for rates in rank.seen("rates")[:-1]:  # after the last step all are 0
        assert len(set(rates)) == 2
        assert max(rates) / min(rates) == pytest.approx(30)
    assert len({max(rates) for rates in rank.seen("rates")[:-1]}) == 3  # full, then along the cosine


def test_a_zero3_result_is_loaded_for_inference(train, caplog):
    output, _ = train("zero3", "adamw_torch", "paper")
    _, model, _, _ = load_pretrained_model(str(output), None, device="cpu")
    saved = weights(output)
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items() if name in saved)
    assert {name for name in model.state_dict() if "vision_tower" not in name} <= saved.keys()


def test_zero_to_fp32_gives_the_weights_that_were_saved(train, ranks, tmp_path):
    output, _ = train("zero3", "adamw_torch", "paper")
    checkpoint = output / "checkpoint-4"
    words = [checkpoint, tmp_path / "fp32", "--safe_serialization"]
    ranks.run(words, ranks=1, script=str(checkpoint / "zero_to_fp32.py"))
    merged, saved = weights(tmp_path / "fp32"), weights(checkpoint)
    trained = [name for name in saved if "vision_tower" not in name]
    assert trained
    assert all(torch.equal(merged[name], saved[name]) for name in trained)


def test_a_bf16_run_saves_consolidated_16_bit_weights(ranks, in_order, complete, configs, tmp_path):
    settings = [
        "--bf16",
        "True",
        "--model_name_or_path",
        complete("policy"),
        "--gradient_checkpointing",
        "True",
    ]
    ranks.run(in_order(tmp_path, *settings, "--deepspeed", configs("zero3")))
    saved = weights(tmp_path)
    _, model, _, _ = load_pretrained_model(str(tmp_path), None, device="cpu", dtype=torch.bfloat16)
    learned = {name for name, _ in model.named_parameters() if "vision_tower" not in name}
    assert {saved[name].dtype for name in learned} == {torch.bfloat16}  # of buffers, mu stays what it was
    state = model.state_dict()
    assert all(torch.equal(state[name], saved[name]) for name in learned)


def test_stage_one_under_zero3_saves_the_whole_projector_alone(ranks, in_order, configs, tmp_path, world):
    for name, zero in (("alone", ["--use_cpu", "True"]), ("together", ["--deepspeed", configs("zero3")])):
        batch = 4 if name == "alone" else 2
        settings = ["--per_device_train_batch_size", batch, "--learning_rate", "0", *zero]
        words = in_order(tmp_path / name, "--max_steps", 1, *settings, stage=1)
        ranks.run(words, ranks=1 if name == "alone" else 2, started=True)
    alone = torch.load(tmp_path / "alone" / "mm_projector.bin", weights_only=True)
    together = torch.load(tmp_path / "together" / "mm_projector.bin", weights_only=True)
    assert {name: value.shape for name, value in alone.items()} == {
        name: value.shape for name, value in together.items()
    }
    assert all(value.isfinite().all() for value in together.values())
    assert not list((tmp_path / "together").glob("*.safetensors"))
