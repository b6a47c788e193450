"""The optimizer's groups against those of the original (batch/train_steps.json)."""

import json

import pytest
from transformers import set_seed

from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.trainable import set_trainable
from llava.train.trainer import LlavaTrainer
from tests.golden_data import case_folder

CASES = case_folder("batch") / "train_steps.json"


@pytest.mark.parametrize(("rate", "case"), [(None, "no_projector_lr"), (2e-4, "projector_lr")])
def test_parameters_rates_and_decay_are_grouped_as_upstream_does(rate, case, tiny_llava, tmp_path):
    expected = json.loads(CASES.read_text())["param_groups"][case]
    set_seed(0)
    _, model, _ = tiny_llava()
    training = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, learning_rate=1e-3, weight_decay=0.1, mm_projector_lr=rate
    )
    set_trainable(model, ModelArguments(), training)
    groups = LlavaTrainer(model=model, args=training).create_optimizer().param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = [
        {
            "names": sorted(names[parameter] for parameter in group["params"]),
            **{key: group[key] for key in ("lr", "weight_decay", "eps")},
            "betas": list(group["betas"]),
        }
        for group in groups
    ]
    assert len(found) == len(expected)
    for group in expected:
        assert {**group, "names": sorted(group["names"])} in found
