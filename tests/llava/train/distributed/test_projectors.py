"""Projectors that leave fewer tokens under ZeRO-3: two ranks learn what one process does.

The second rank's first batch is text only (conftest.py `mixed`), so a projector that not every batch runs
alike would end in an error or other losses. Tolerances are those of test_zero.py.
"""

import pytest
import torch

from llava.train.build import build_for_training
from tests.llava.train.distributed.results import losses, weights

NEAR = {"rtol": 1e-5, "atol": 1e-4}
KINDS = {"resampler": ["--mm_projector_options", "num_queries=4"], "token_packer": [], "c_abstractor": []}


@pytest.fixture(scope="module")
def complete(world, tmp_path_factory):
    """A function that gives a checkpoint with a projector in it, so that no run draws new weights."""

    def make(kind):
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(1)
        tokenizer, model, _ = build_for_training(
            model_name_or_path=str(world / "base"),
            vision_tower=str(world / "tower"),
            mm_projector_type=kind,
            mm_projector_options={"num_queries": 4} if kind == "resampler" else None,
            mm_vision_select_layer=-2,
            mm_use_im_patch_token=False,
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize(
    "kind", [kind if kind == "resampler" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_two_ranks_learn_what_one_process_does(kind, ranks, in_order, complete, configs, tmp_path):
    settings = ["--model_name_or_path", complete(kind), "--mm_projector_type", kind, *KINDS[kind]]
    settings += ["--max_steps", 4, "--learning_rate", "1e-3", "--mm_projector_lr", "0.01"]
    alone = ["--per_device_train_batch_size", 4, "--use_cpu", "True"]
    split = ["--per_device_train_batch_size", 2, "--deepspeed", configs("zero3")]
    ranks.run(in_order(tmp_path / "alone", *settings, *alone), ranks=1)
    ranks.run(in_order(tmp_path / "split", *settings, *split))
    assert torch.allclose(losses(tmp_path / "alone"), losses(tmp_path / "split"), **NEAR)
    expected, found = weights(tmp_path / "alone"), weights(tmp_path / "split")
    learned = [name for name in expected if "vision_tower." not in name]
    assert any("mm_projector." in name for name in learned)
    assert [name for name in learned if not torch.allclose(expected[name], found[name], **NEAR)] == []


def test_stage_one_draws_a_resampler_that_its_base_lacks_and_saves_it_whole(
    ranks, in_order, configs, tmp_path
):
    words = ["--mm_projector_type", "resampler", *KINDS["resampler"], "--learning_rate", 0]
    words += ["--per_device_train_batch_size", 1, "--deepspeed", configs("zero3")]
    ranks.run(in_order(tmp_path, *words, stage=1))
    saved = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert all(torch.isfinite(value).all() and value.numel() for value in saved.values())
    queries = saved["model.mm_projector.queries"]
    assert queries.shape == (4, 32)
    assert float(queries.std()) == pytest.approx(0.02, rel=0.3)
    assert (saved["model.mm_projector.norm.weight"] == 1).all()
