"""What `--reduction` asks for, beside a base that has a reduction of its own or none."""

import json
import logging
import shutil

import pytest

from llava.model.reduction import parse_reduction
from llava.train.estimate import main as estimate
from llava.train.train import prepare

PAPER = ("--reduction", "dpn", "layers=1,2", "preset=paper")
POLICY = ("--reduction", "dpn", "layers=1,2", "preset=policy")


@pytest.fixture
def reduced(world, tmp_path):
    """A base whose config.json says that it was trained with a reduction; checks read no weights."""
    folder = tmp_path / "dpn"
    shutil.copytree(world / "base", folder)
    settings = json.loads((folder / "config.json").read_text())
    saved = parse_reduction(POLICY[1:]).to_dict()
    settings |= {"model_type": "llava_llama", "mm_vision_tower": str(world / "tower"), "reduction": saved}
    settings |= {"mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 16}
    (folder / "config.json").write_text(json.dumps(settings))
    return ("--model_name_or_path", str(folder))


def test_a_reduction_that_training_would_keep_is_not_taken_for_none(command, reduced, tmp_path):
    with pytest.raises(ValueError, match=r"--reduction none: .*dpn was trained with a reduction.*leave"):
        prepare(command(tmp_path / "out", *reduced, "--reduction", "none"))
    with pytest.raises(ValueError, match=r"--reduction none: .* was trained with a reduction"):
        estimate(command(tmp_path / "out", *reduced, "--reduction", "none"))


def test_without_the_flag_the_checkpoints_reduction_goes_on_and_is_named(command, reduced, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        job = prepare(command(tmp_path / "out", *reduced))
    assert job.reduction is None
    (line,) = [message for message in caplog.messages if "goes on with its own" in message]
    assert "layers=(1, 2)" in line


def test_none_is_what_a_plain_base_has_anyway(command, tmp_path):
    assert prepare(command(tmp_path, "--reduction", "none")).reduction is None


def test_a_frozen_embedding_under_routers_that_read_a_new_token_is_refused(command, tmp_path):
    with pytest.raises(ValueError, match=r"freezes the embedding of <ROUTER>.*use --lora_enable True"):
        prepare(command(tmp_path, *PAPER, "--freeze_backbone", "True"))


def test_routers_that_read_no_token_may_learn_over_a_frozen_backbone(command, tmp_path):
    assert prepare(command(tmp_path, *POLICY, "--freeze_backbone", "True")).reduction is not None


def test_adapters_train_the_tokens_row_over_a_frozen_backbone(command, tmp_path):
    pytest.importorskip("peft", reason="the extra `train` is not installed")
    words = ("--freeze_backbone", "True", "--lora_enable", "True")
    assert prepare(command(tmp_path, *PAPER, *words)).reduction is not None
