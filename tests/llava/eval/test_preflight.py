import json

import pytest

from llava.eval.arguments import EvalArguments
from llava.eval.preflight import checkpoint_hash, plan_run
from llava.eval.ranks import Ranks
from llava.model.budgets import Budgets
from llava.model.config import read_config
from llava.model.identity import checkpoint_digest
from llava.model.reduction import BudgetTable
from tests.llava.eval.conftest import write_lines
from tests.llava.model.released_writer import write_checkpoint, write_tower


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    (folder / "model.safetensors").write_bytes(b"0" * 100_000)
    return folder


@pytest.fixture
def plan(data_root, checkpoint, tmp_path):
    def run(**changes):
        given = {
            "benchmarks": ["gqa", "pope"],
            "model_path": str(checkpoint),
            "data_root": str(data_root),
            "output_dir": str(tmp_path / "results"),
        }
        return plan_run(EvalArguments(**{**given, **changes}), Ranks())

    return run


def test_one_plan_is_made_for_each_benchmark(plan, tmp_path):
    plans = plan(max_samples=3)
    assert [p.benchmark.name for p in plans] == ["gqa", "pope"]
    assert [len(p.questions) for p in plans] == [3, 3]
    assert (tmp_path / "results" / "pope" / "run.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmarks": ["gqa", "vqa"]}, "no benchmark 'vqa'; there are gqa, vqav2, "),
        ({"conv_mode": "v9"}, "no template 'v9'"),
        ({"model_path": "./nowhere"}, r"--model_path ./nowhere: no such directory"),
        ({"model_base": "./nowhere"}, r"--model_base ./nowhere: no such directory"),
        ({"reduction": ["dpn", "kernel=1x1"]}, "did you mean kernels"),
        ({"benchmarks": ["textvqa"]}, r"llava_textvqa_val_v051_ocr.jsonl: no such file"),
        ({"data_root": "/nowhere"}, "no such file"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(plan, changes, message):
    with pytest.raises(ValueError, match=message):
        plan(**changes)


def test_a_missing_image_is_named_with_its_question(plan, data_root):
    (data_root / "gqa" / "images" / "n902.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"gqa: 1 of 10 images are missing, for example .*n902.jpg \(question 203\)"
    ):
        plan()


def test_an_unwritable_output_is_named(plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"can't write answers to .*choose another --output_dir"):
        plan(output_dir=str(tmp_path / "file"))


def test_another_checkpoint_in_the_same_output_is_refused(plan, checkpoint):
    write_lines(plan()[1].files.own, [{"question_id": 1}])
    plan()
    (checkpoint / "model.safetensors").write_bytes(b"1" * 100_000)
    with pytest.raises(ValueError, match=r"holds answers of another run .checkpoint was"):
        plan()


def test_another_setting_in_the_same_output_is_refused(plan):
    write_lines(plan()[0].files.own, [{"question_id": "201"}])
    with pytest.raises(ValueError, match=r"conv_mode was 'auto', is 'llava_v1'"):
        plan(conv_mode="llava_v1")


def test_a_larger_batch_may_continue_a_run(plan):
    plan()
    assert plan(batch_size=16)[0].batch_size == 16


def test_a_hub_id_is_known_by_its_name():
    assert checkpoint_hash("liuhaotian/llava-v1.5-7b") == "liuhaotian/llava-v1.5-7b"


def test_a_stage_one_folder_asks_for_its_base_model(plan, checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "mm_projector.bin")
    with pytest.raises(ValueError, match=r"a projector only \(stage 1\); add --model_base"):
        plan()


def test_a_checkpoint_without_weights_is_refused(plan, checkpoint):
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"--model_path .*: no weights"):
        plan()


def test_a_base_model_without_weights_or_beside_a_full_checkpoint_is_refused(plan, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"no mm_projector.bin, so nothing to add to --model_base"):
        plan(model_base=str(checkpoint))
    base = tmp_path / "base"
    base.mkdir()
    with pytest.raises(ValueError, match=r"--model_base .*: no config.json; expected a language model"):
        plan(model_base=str(base))
    (base / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"--model_base .*: no weights"):
        plan(model_base=str(base))


def test_a_directory_without_config_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"no config.json; expected a LLaVA checkpoint"):
        checkpoint_hash(str(tmp_path))


@pytest.fixture
def released(tmp_path):
    """Give a checkpoint in the authors' format."""
    return write_checkpoint(tmp_path / "released", write_tower(tmp_path / "clip"))


def calibrate(folder):
    """Write a calibration beside a checkpoint."""
    Budgets(
        table=BudgetTable((-1000.0, 2.0, 1000.0), {"visual": (1.0, 0.5, 0.5), "full": (1.0, 0.8, 0.8)}),
        reduction=read_config(str(folder)).reduction,
        checkpoint=checkpoint_digest(folder),
        provenance={},
    ).write(folder)


def test_a_budget_is_looked_up_for_the_authors_format_too(plan, released):
    with pytest.raises(ValueError, match=r"budget=0.5: the checkpoint isn't calibrated"):
        plan(model_path=str(released), budget=0.5)
    calibrate(released)
    identity = json.loads(
        (plan(model_path=str(released), budget=0.5)[0].files.folder / "run.json").read_text()
    )
    assert identity["router_shift"] == 501.0
    with pytest.raises(ValueError, match=r"budget=0.2 .visual. is out of reach"):
        plan(model_path=str(released), budget=0.2)


def test_words_that_contradict_the_authors_format_are_refused_before_it_is_loaded(plan, released):
    with pytest.raises(ValueError, match=r"was trained with layers=\(1, 2, 4\), so it can't run with"):
        plan(model_path=str(released), reduction=["dpn", "layers=1,2,3"])
    with pytest.raises(ValueError, match=r"can't run with --reduction none"):
        plan(model_path=str(released), reduction=["none"])


def test_an_adapter_beside_its_base_is_evaluated(plan, checkpoint, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"0")
    assert plan(model_path=str(adapter), model_base=str(checkpoint))
    with pytest.raises(ValueError, match=r"is a LoRA directory.*model_base"):
        plan(model_path=str(adapter))
