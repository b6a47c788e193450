import json

import pytest

from llava.model.reduction import parse_reduction
from llava.train.arguments import Arguments, DataArguments, ModelArguments, TrainingArguments
from llava.train.fingerprint import claim, fingerprint


@pytest.fixture
def settings(tmp_path):
    """Make the fingerprint of a run with changed arguments."""
    for name in ("data.json", "mm_projector.bin"):
        (tmp_path / name).write_text("first")

    def make(reduction=None, data_path=tmp_path / "data.json", base="base", **training):
        projector = str(tmp_path / "mm_projector.bin")
        given = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "seed": 1, **training}
        arguments = Arguments(
            ModelArguments(model_name_or_path=base, vision_tower="tower", pretrain_mm_mlp_adapter=projector),
            DataArguments(data_path=str(data_path)),
            TrainingArguments(**given),
        )
        return fingerprint(arguments, reduction)

    return make


@pytest.fixture
def used(tmp_path, settings):
    """An output folder with a result."""
    folder = tmp_path / "out"
    folder.mkdir()
    claim(folder, settings(), is_writer=True)
    (folder / "trainer_state.json").touch()
    return folder


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"learning_rate": 1e-3}, "learning_rate was 5e-05, is 0.001"),
        ({"seed": 2}, "seed was 1, is 2"),
        ({"max_grad_norm": 0.1}, "max_grad_norm was 1.0, is 0.1"),
        ({"adam_beta2": 0.5}, "adam_beta2 was 0.999, is 0.5"),
        ({"bf16": True}, "bf16 was False, is True"),
        ({"base": "other"}, "model_name_or_path was 'base', is 'other'"),
        ({"max_steps": 7}, "max_steps was -1, is 7"),
        ({"num_train_epochs": 2}, "num_train_epochs was 3.0, is 2"),
        ({"per_device_train_batch_size": 4}, "global_batch was 8, is 4"),
        ({"freeze_mm_mlp_adapter": True}, "freeze_mm_mlp_adapter was False, is True"),
    ],
)
def test_another_run_in_a_used_folder_is_refused_with_what_differs(used, settings, changes, difference):
    with pytest.raises(ValueError, match="Choose another --output_dir, or remove that folder") as caught:
        claim(used, settings(**changes), is_writer=True)
    assert f"{used} holds another run" in str(caught.value)
    assert difference in str(caught.value)
    assert json.loads((used / "run.json").read_text()) == settings()


def test_of_another_reduction_only_the_fields_that_differ_are_named(settings, tmp_path):
    claim(tmp_path, settings(parse_reduction(["dpn", "preset=paper", "target=1.5"])), is_writer=True)
    (tmp_path / "trainer_state.json").touch()
    with pytest.raises(ValueError, match=r"holds another run \(reduction\.target was 1\.5, is 1\.2\)"):
        claim(tmp_path, settings(parse_reduction(["dpn", "preset=paper", "target=1.2"])), is_writer=True)


@pytest.mark.parametrize("name", ["data.json", "mm_projector.bin"])
def test_a_file_with_other_content_is_refused(used, settings, tmp_path, name):
    (tmp_path / name).write_text("second")
    with pytest.raises(ValueError, match=f"was '{name} sha256:"):
        claim(used, settings(), is_writer=True)


def test_data_that_moved_is_the_same_data(used, settings, tmp_path):
    (tmp_path / "moved").mkdir()
    moved = (tmp_path / "data.json").rename(tmp_path / "moved" / "data.json")
    (tmp_path / "data.json").write_text("something else")
    claim(used, settings(data_path=moved), is_writer=True)


def test_the_batch_may_be_split_otherwise(used, settings):
    claim(used, settings(per_device_train_batch_size=2, gradient_accumulation_steps=4), is_writer=True)


def test_what_only_concerns_speed_may_change(used, settings):
    claim(used, settings(logging_steps=3, dataloader_num_workers=2, save_steps=9), is_writer=True)


def test_a_checkpoint_makes_a_folder_used(settings, tmp_path):
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint-3" / "trainer_state.json").touch()
    with pytest.raises(ValueError, match=r"holds a run, but no run\.json with its settings"):
        claim(tmp_path / "out", settings(), is_writer=True)


def test_a_run_that_saved_nothing_is_replaced(settings, tmp_path):
    claim(tmp_path, settings(seed=3), is_writer=True)
    claim(tmp_path, settings(seed=4), is_writer=False)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 3
    claim(tmp_path, settings(seed=4), is_writer=True)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 4
