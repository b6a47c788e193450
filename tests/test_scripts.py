"""The bash scripts: they parse, name things that exist, and pass flags that are read."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llava.train.arguments import parse
from tests.script_runs import run_script

ROOT = Path(__file__).parent.parent
PATHS = [*(ROOT / "scripts").rglob("*.sh"), *(ROOT / "scripts").rglob("*.sbatch"), ROOT / ".ci/run"]
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in PATHS)
TOOLS = {"scripts/lib.sh", "scripts/setup.sh", "scripts/test.sh", "scripts/test_lmms_eval.sh", ".ci/run"}
FOLDERS = r"(?:scripts|llava|dpn|docs|tests)/[\w./-]+\.\w+|playground/README\.md"
FILES = re.compile(rf"(?<![\w./-])(?:{FOLDERS}|[\w-]+\.(?:toml|txt))(?![\w/*])")
MODULE = re.compile(r"(?:-m|--module) (llava[\w.]*|dpn[\w.]*)")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z_]+)(?=[ =\"\n])")
LAUNCHER_FLAGS = {"num_gpus", "module", "standalone", "nproc_per_node", "nnodes", "hostfile", "no_ssh"}
LAUNCHER_FLAGS |= {"nodes", "time", "requeue", "output"}  # of sbatch
LAUNCHER_FLAGS |= {"record"}  # of scripts/data
STAGES = [
    "pretrain",
    "finetune",
    "finetune_dpn",
    "finetune_lora",
    "finetune_dpn_lora",
    "finetune_task",
    "finetune_task_lora",
]


def text(script):
    return (ROOT / script).read_text(encoding="utf-8")


@functools.cache
def flags_of(module):
    """The flags that `python -m module --help` lists, in snake_case."""
    command = [sys.executable, "-m", module, "--help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {flag.replace("-", "_") for flag in re.findall(r"--([a-z][\w-]+)", shown)}


@pytest.mark.parametrize("script", SCRIPTS)
def test_bash_can_read_it(script):
    result = subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_finds_nothing(script):
    shellcheck = Path(sys.executable).parent / "shellcheck"
    command = [str(shellcheck), "--external-sources", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_repository_path_that_it_names_exists(script):
    missing = [path for path in FILES.findall(text(script)) if not (ROOT / path).exists()]
    assert not missing


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_module_that_it_runs_exists(script):
    for module in MODULE.findall(text(script)):
        path = ROOT / module.replace(".", "/")
        assert (path / "__main__.py").is_file() or path.with_suffix(".py").is_file(), module


def modules_of(script):
    """The modules whose flags may stand in a script: those it runs itself or through another script."""
    content = text(script)
    modules = set(MODULE.findall(content))
    if script.startswith("scripts/eval/") or "scripts/eval/" in content:
        modules.add("llava.eval")
    if any(f"scripts/{stage}.sh" in content for stage in STAGES):
        modules.add("llava.train")
    return modules


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script not in TOOLS])
def test_every_flag_in_a_script_is_read_by_a_module_it_runs(script):
    read = LAUNCHER_FLAGS.union(*(flags_of(module) for module in modules_of(script)))
    assert set(FLAG.findall(text(script))) <= read


@pytest.mark.parametrize("stage", STAGES)
def test_every_flag_of_a_training_script_is_read(stage, inputs):
    result = run_script(
        f"scripts/{stage}.sh", "--weight_decay", "0.5", LAUNCHER="none", ZERO="none", **inputs
    )
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()
    assert words[:3] == ["python", "-m", "llava.train"]
    arguments = parse(words[3:])
    assert arguments.training.weight_decay == 0.5  # what the user adds comes last and wins
    assert arguments.training.output_dir == inputs["OUTPUT"]


@pytest.mark.parametrize(
    ("stage", "batch", "rate", "zero"),
    [
        ("pretrain", 256, 1e-3, "zero2"),
        ("finetune", 128, 2e-5, "zero3"),
        ("finetune_dpn", 128, 2e-5, "zero3"),
        ("finetune_lora", 128, 2e-4, "zero3"),
        ("finetune_dpn_lora", 128, 2e-4, "zero3"),
        ("finetune_task", 128, 2e-5, "zero3"),
        ("finetune_task_lora", 128, 2e-4, "zero3"),
    ],
)
def test_the_defaults_are_the_papers(stage, batch, rate, zero, inputs):
    if "task" in stage:
        del inputs["PROJECTOR"]  # the checkpoint to go on from brings one
    words = run_script(f"scripts/{stage}.sh", **inputs).stdout.splitlines()
    assert words[:6] == ["deepspeed", "--num_gpus", "8", "--module", "llava.train", "--deepspeed"]
    assert words[6] == f"scripts/{zero}.json"
    model, data, training = parse(words[7:])
    is_task, has_lora = "task" in stage, "lora" in stage
    base = "liuhaotian/llava-v1.5-7b" if is_task else "lmsys/vicuna-7b-v1.5"
    assert model.model_name_or_path == base
    assert (model.pretrain_mm_mlp_adapter is None) == (is_task or stage == "pretrain")
    assert training.lora_enable is has_lora
    if has_lora:
        assert (training.lora_r, training.lora_alpha, training.mm_projector_lr) == (128, 256, 2e-5)
    assert model.vision_tower == "openai/clip-vit-large-patch14-336"
    assert model.mm_vision_select_layer == -2
    assert 8 * training.per_device_train_batch_size * training.gradient_accumulation_steps == batch
    assert (training.learning_rate, training.warmup_steps, training.weight_decay) == (rate, 0.03, 0)
    assert training.lr_scheduler_type == "cosine"
    assert (training.bf16, training.gradient_checkpointing, training.model_max_length) == (True, True, 2048)
    assert data.image_aspect_ratio == ("square" if stage == "pretrain" else "pad")
    assert training.group_by_modality_length == (stage != "pretrain")
    dpn = ["dpn", "preset=paper", "layers=8,16,24", "target=1.5", "loss_weight=0.01"]
    if stage == "finetune_dpn_lora":  # routers learn at the rate of full training
        dpn.append("router_lr_scale=0.1")
    assert model.reduction == (dpn if "dpn" in stage else [])


@pytest.mark.parametrize(("gpus", "accumulation"), [("8", "1"), ("4", "2"), ("1", "8")])
def test_the_global_batch_stays_on_any_number_of_gpus(gpus, accumulation, inputs):
    words = run_script("scripts/finetune.sh", GPUS=gpus, **inputs).stdout.splitlines()
    assert words[words.index("--gradient_accumulation_steps") + 1] == accumulation


def test_a_global_batch_that_cannot_be_kept_is_refused(inputs):
    result = run_script("scripts/finetune.sh", GPUS="3", **inputs)
    assert result.returncode != 0
    assert "GLOBAL_BATCH=128 is no multiple of GPUS x BATCH = 3 x 16 = 48" in result.stderr


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("BASE", "download a Vicuna-v1.5 checkpoint there, or set BASE"),
        ("VISION_TOWER", "download a CLIP checkpoint there, or set VISION_TOWER"),
        ("PROJECTOR", "run scripts/pretrain.sh first, or set PROJECTOR"),
        ("DATA", "it is part of liuhaotian/LLaVA-Instruct-150K"),
        ("IMAGES", "playground/README.md says which image sets go there, or set IMAGES"),
    ],
)
def test_a_missing_input_is_named_with_its_origin(variable, advice, inputs, tmp_path):
    missing = str(tmp_path / "missing")
    result = run_script("scripts/finetune.sh", **(inputs | {variable: missing}))
    assert result.returncode == 1
    assert f"no {missing}: {advice}" in result.stderr
    assert result.stdout == ""


def test_an_input_given_as_a_flag_is_not_demanded_as_a_variable(inputs, tmp_path):
    inputs["DATA"] = str(tmp_path / "missing")
    assert run_script("scripts/finetune.sh", "--data_path", "other.json", **inputs).returncode == 0


def test_the_toy_preset_runs_the_same_script_on_a_cpu(inputs, tmp_path):
    folders = {"BASE": str(tmp_path), "VISION_TOWER": str(tmp_path)}
    result = run_script("scripts/finetune_dpn.sh", PRESET="toy", **folders, **inputs)
    words = result.stdout.splitlines()
    assert words[:3] == ["python", "-m", "llava.train"], result.stderr
    model, _, training = parse(words[3:])
    assert "layers=2,4,6" in model.reduction
    assert not training.bf16


@pytest.mark.parametrize(
    ("preset", "variable", "other"),
    [("paper", "BUDGET", "policy"), ("policy", "LOSS_WEIGHT", "paper"), ("policy", "TARGET", "paper")],
)
def test_a_variable_of_the_other_dpn_preset_is_refused(preset, variable, other, inputs):
    result = run_script("scripts/finetune_dpn.sh", DPN_PRESET=preset, **(inputs | {variable: "0.4"}))
    assert result.returncode == 1
    message = f"{variable}=0.4 has no effect with DPN_PRESET={preset}: set DPN_PRESET={other}"
    assert message in result.stderr
    assert result.stdout == ""


def test_the_budget_of_the_policy_is_passed_on(inputs):
    words = run_script(
        "scripts/finetune_dpn.sh", DPN_PRESET="policy", BUDGET="0.4", **inputs
    ).stdout.splitlines()
    assert words[words.index("--reduction") + 1 :][:4] == [
        "dpn",
        "preset=policy",
        "layers=8,16,24",
        "budget=0.4",
    ]


@pytest.mark.parametrize(
    "stage", ["pretrain", "finetune", "finetune_dpn", "finetune_lora", "finetune_dpn_lora"]
)
@pytest.mark.parametrize("preset", [{}, {"PRESET": "toy"}])
def test_another_projector_has_options_and_folders_of_its_own(stage, preset, inputs, tmp_path):
    del inputs["OUTPUT"], inputs["PROJECTOR"]
    variables = {**inputs, **preset, "LAUNCHER": "none", "ZERO": "none"}
    variables |= {"PROJECTOR_TYPE": "token_packer", "PROJECTOR_OPTIONS": "scale=4 layers=12,23"}
    if preset:
        variables |= {"BASE": str(tmp_path), "VISION_TOWER": str(tmp_path)}
    missing = run_script(f"scripts/{stage}.sh", **variables)
    if stage != "pretrain":
        assert "-pretrain-token_packer/mm_projector.bin: run scripts/pretrain.sh first" in missing.stderr
    result = run_script(f"scripts/{stage}.sh", "--pretrain_mm_mlp_adapter", "file.bin", **variables)
    model, _, training = parse(result.stdout.splitlines()[3:])
    assert model.mm_projector_type == "token_packer"
    assert model.mm_projector_options == ["scale=4", "layers=12,23"]
    assert "token_packer" in training.output_dir


def test_llavas_projector_is_the_default_and_needs_no_options(inputs):
    words = run_script("scripts/pretrain.sh", LAUNCHER="none", ZERO="none", **inputs).stdout.splitlines()
    model = parse(words[3:]).model
    assert (model.mm_projector_type, model.mm_projector_options) == ("mlp2x_gelu", [])


def test_an_unknown_preset_is_refused(inputs):
    result = run_script("scripts/pretrain.sh", PRESET="tiny", **inputs)
    assert "no preset 'tiny'" in result.stderr
    assert result.returncode == 1


@pytest.mark.parametrize("stage", ["2", "3", "3_offload"])
def test_a_zero_configuration_leaves_clipping_and_batch_to_the_command_line(stage):
    config = json.loads(text(f"scripts/zero{stage}.json"))
    assert config["zero_optimization"]["stage"] == int(stage[0])
    assert config["gradient_clipping"] == config["train_batch_size"] == config["bf16"]["enabled"] == "auto"
    assert "optimizer" not in config  # it would bypass our parameter groups, and
    assert "scheduler" not in config  # this the cosine
