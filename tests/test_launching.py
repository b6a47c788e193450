"""What the training scripts start: several machines, sizes and GPUs, and the batch that stays."""

import os
import stat
from pathlib import Path

import pytest

from llava.train.arguments import parse
from tests.script_runs import run_script

ROOT = Path(__file__).parent.parent


def words_of(script, *arguments, **variables):
    result = run_script(script, *arguments, **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def after(words, flag):
    return words[words.index(flag) + 1]


def test_torchrun_joins_machines_and_the_global_batch_stays(inputs):
    meeting = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}
    words = words_of("scripts/finetune_dpn.sh", BATCH="8", **meeting, **inputs)
    expected = ["torchrun", "--nnodes", "2", "--node_rank", "1", "--master_addr", "node0"]
    expected += ["--master_port", "1234", "--nproc_per_node", "8", "-m", "llava.train"]
    assert words[: len(expected)] == expected
    assert after(words, "--gradient_accumulation_steps") == "1"  # 2 machines x 8 GPUs x 8


@pytest.fixture
def hostfile(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# machines\nnode0 slots=4\nnode1 slots=4\n")
    return str(path)


def test_a_hostfile_is_given_to_deepspeed_which_reaches_the_machines(hostfile, inputs):
    words = words_of("scripts/finetune_dpn.sh", HOSTFILE=hostfile, **inputs)
    assert words[:5] == ["deepspeed", "--hostfile", hostfile, "--module", "llava.train"]
    assert after(words, "--gradient_accumulation_steps") == "1"  # 2 x 4 GPUs x 16


def test_deepspeed_is_told_where_to_meet_when_the_user_says_it(hostfile, inputs):
    meeting = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"}
    words = words_of("scripts/finetune_dpn.sh", HOSTFILE=hostfile, **meeting, **inputs)
    assert words[1:7] == ["--hostfile", hostfile, "--master_addr", "10.0.0.1", "--master_port", "1234"]
    words = words_of("scripts/pretrain.sh", MASTER_PORT="1234", **inputs)
    assert words[:5] == ["deepspeed", "--num_gpus", "8", "--master_port", "1234"]


def test_a_hostfile_says_which_gpus_are_taken(hostfile, inputs):
    words = words_of("scripts/finetune_dpn.sh", HOSTFILE=hostfile, CUDA_VISIBLE_DEVICES="0,1", **inputs)
    assert words[:2] == ["deepspeed", "--hostfile"]
    assert after(words, "--gradient_accumulation_steps") == "1"


def test_without_ssh_every_machine_is_told_its_number(hostfile, inputs):
    meeting = {"NODE_RANK": "0", "MASTER_ADDR": "node0"}
    words = words_of("scripts/finetune.sh", HOSTFILE=hostfile, **meeting, **inputs)
    expected = ["deepspeed", "--hostfile", hostfile, "--no_ssh", "--node_rank", "0"]
    assert words[: len(expected)] == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"NNODES": "2", "NODE_RANK": "0"}, "NNODES=2 needs MASTER_ADDR"),
        (
            {"NNODES": "2", "MASTER_ADDR": "a"},
            "NODE_RANK= must be this machine's number, from 0 to NNODES-1 = 1",
        ),
        ({"NNODES": "2", "MASTER_ADDR": "a", "NODE_RANK": "2"}, "NODE_RANK=2 must be this machine's number"),
        ({"NNODES": "2", "LAUNCHER": "deepspeed"}, "LAUNCHER=deepspeed needs a HOSTFILE for NNODES=2"),
        ({"HOSTFILE": "/no/hosts"}, "no HOSTFILE=/no/hosts: write one line"),
        (
            {"NNODES": "3", "MASTER_ADDR": "a", "NODE_RANK": "0"},
            "no multiple of GPUS x BATCH = 24 x 16 = 384",
        ),
    ],
)
def test_a_launch_that_cannot_work_is_refused(variables, message, inputs):
    result = run_script("scripts/finetune_dpn.sh", **variables, **inputs)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "node0\n",
        "node0 slots=4\nnode1 slots=8\n",
        "node0 slots=4\nnode1\n",
        "node0 slots=4\nnode1 slots = 4\n",
        "node0 slots=4x\n",
    ],
)
def test_a_hostfile_that_leaves_the_number_of_gpus_open_is_refused(text, tmp_path, inputs):
    (tmp_path / "hosts").write_text(text)
    result = run_script("scripts/finetune_dpn.sh", HOSTFILE=str(tmp_path / "hosts"), **inputs)
    assert "every line must be 'HOST slots=GPUS', with the same GPUS" in result.stderr


def test_a_hostfile_that_names_a_machine_twice_or_contradicts_a_variable_is_refused(hostfile, inputs):
    for variable in ("NNODES", "GPUS"):
        result = run_script("scripts/finetune_dpn.sh", HOSTFILE=hostfile, **{variable: "8"}, **inputs)
        assert result.returncode == 1
        assert f"{variable}=8, but HOSTFILE={hostfile}" in result.stderr
    Path(hostfile).write_text("node0 slots=4\nnode0 slots=4\n")
    assert "names node0 twice" in run_script("scripts/finetune_dpn.sh", HOSTFILE=hostfile, **inputs).stderr


@pytest.mark.parametrize(
    ("stage", "batch"), [("finetune_dpn", "8"), ("finetune_lora", "8"), ("pretrain", "16")]
)
def test_a_default_batch_is_lowered_where_more_machines_share_the_global_one(stage, batch, inputs):
    meeting = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "node0"}
    words = words_of(f"scripts/{stage}.sh", **meeting, **inputs)
    assert after(words, "--per_device_train_batch_size") == batch
    assert after(words, "--gradient_accumulation_steps") == "1"
    result = run_script(f"scripts/{stage}.sh", BATCH="32", **meeting, **inputs)
    assert result.returncode == 1
    assert f"BATCH={batch} would do" in result.stderr


@pytest.mark.parametrize("name", ["GPUS", "NNODES", "BATCH", "GLOBAL_BATCH"])
@pytest.mark.parametrize("value", ["abc", "08", "1.5", "0", "-128"])
def test_a_number_that_bash_cannot_count_with_is_refused_in_one_line(name, value, inputs):
    result = run_script("scripts/finetune.sh", **{name: value}, **inputs)
    assert result.returncode == 1
    assert f"{name}={value} must be a whole number" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_accumulation_that_would_change_the_global_batch_is_refused(inputs):
    result = run_script("scripts/finetune.sh", ACCUMULATION="3", **inputs)
    assert "GLOBAL_BATCH=128 and BATCH=16 on 8 GPUs give 1: leave it out" in result.stderr


def test_own_flags_of_torchrun_say_how_many_processes_share_the_global_batch(inputs):
    words = words_of("scripts/finetune.sh", LAUNCHER="torchrun --standalone --nproc_per_node 2", **inputs)
    assert words[:6] == ["torchrun", "--standalone", "--nproc_per_node", "2", "-m", "llava.train"]
    assert after(words, "--gradient_accumulation_steps") == "4"  # 2 GPUs x 16
    for launcher, message in (
        ("torchrun --nproc-per-node=2", "another number of processes than GPUS=4"),
        ("torchrun --nnodes=2 --nproc_per_node 4", "another number of machines than NNODES=1"),
    ):
        result = run_script("scripts/finetune.sh", LAUNCHER=launcher, GPUS="4", NNODES="1", **inputs)
        assert message in result.stderr
    assert "set GPUS" in run_script("scripts/finetune.sh", LAUNCHER="torchrun --standalone", **inputs).stderr


def test_without_a_launcher_one_process_takes_the_whole_global_batch(inputs):
    words = words_of("scripts/finetune.sh", LAUNCHER="none", ZERO="none", **inputs)
    assert after(words, "--gradient_accumulation_steps") == "8"
    result = run_script("scripts/finetune.sh", LAUNCHER="none", ZERO="none", GPUS="2", **inputs)
    assert "LAUNCHER=none starts one process, but NNODES x GPUS = 1 x 2" in result.stderr


def test_an_estimate_for_several_machines_needs_no_meeting_place(inputs):
    words = words_of("scripts/finetune_dpn.sh", "--estimate", NNODES="2", **inputs)
    assert words[:3] == ["python", "-m", "llava.train"]
    assert after(words, "--estimate_gpus") == "16"
    words = words_of("scripts/finetune_dpn.sh", "--estimate", "False", **inputs)
    assert words[0] == "deepspeed"


@pytest.mark.parametrize(
    ("preset", "script", "batch", "accumulation"),
    [
        ("13b", "finetune_dpn", 16, 1),
        ("a100-40g", "finetune_dpn", 8, 2),
        ("13b-a100-40g", "finetune_dpn", 4, 4),
        ("13b-a100-40g", "finetune_dpn_lora", 4, 4),
        ("13b-a100-40g", "finetune_lora", 4, 4),
        ("13b-a100-40g", "pretrain", 8, 4),
        ("a100-40g", "pretrain", 16, 2),
    ],
)
def test_a_preset_changes_the_micro_batch_and_not_the_global_one(preset, script, batch, accumulation, inputs):
    del inputs["OUTPUT"]
    words = words_of(f"scripts/{script}.sh", PRESET=preset, **inputs)
    assert after(words, "--per_device_train_batch_size") == str(batch)
    assert after(words, "--gradient_accumulation_steps") == str(accumulation)
    size = "13b" if "13b" in preset else "7b"
    assert after(words, "--model_name_or_path") == f"lmsys/vicuna-{size}-v1.5"
    assert size in after(words, "--output_dir")
    if "dpn" in script:
        assert ("layers=10,20,30" if size == "13b" else "layers=8,16,24") in words


def test_the_projector_of_stage_one_is_the_one_of_the_same_size():
    result = run_script("scripts/finetune.sh", PRESET="13b", DRY_RUN="1")
    assert "no checkpoints/llava-v1.5-13b-pretrain/mm_projector.bin" in result.stderr


def test_a_task_goes_on_from_the_checkpoint_of_its_size(inputs):
    del inputs["PROJECTOR"]
    words = words_of("scripts/finetune_task_lora.sh", PRESET="13b", **inputs)
    assert after(words, "--model_name_or_path") == "liuhaotian/llava-v1.5-13b"


def test_routers_keep_their_rate_under_lora_in_every_preset(inputs):
    policy = words_of("scripts/finetune_dpn_lora.sh", DPN_PRESET="policy", **inputs)
    assert "router_lr_scale=0.6" in policy  # 6 at a tenth of the rate
    own = words_of("scripts/finetune_dpn_lora.sh", ROUTER_LR_SCALE="2", **inputs)
    assert "router_lr_scale=2" in own


def test_slurm_starts_one_torchrun_per_machine(tmp_path, inputs):
    tools = {
        "scontrol": "echo node7; echo node8",
        "srun": 'shift; echo "$SRUN_CPUS_PER_TASK cores"; '
        'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod((tmp_path / name).stat().st_mode | stat.S_IXUSR)
    slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_JOB_ID": "123"}
    slurm |= {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    result = run_script("scripts/slurm/finetune_dpn.sbatch", "--seed", "7", **slurm, **inputs)
    assert result.returncode == 0, result.stderr
    words = result.stdout.splitlines()
    assert words[0] == "32 cores"
    starts = [place for place, word in enumerate(words) if word == "torchrun"]
    for rank, place in enumerate(starts):
        expected = f"torchrun --nnodes 2 --node_rank {rank} --master_addr node7 --master_port 20123"
        assert words[place : place + 11] == [*expected.split(), "--nproc_per_node", "4"]
    assert len(starts) == 2
    assert words.count("--seed") == 4  # the script's, and the user's last
    _, _, training = parse(words[starts[1] + 15 :])
    assert training.seed == 7


@pytest.fixture
def three_gpus(tmp_path):
    """A PATH with an nvidia-smi that lists three GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/usr/bin/env bash\nfor i in ${LISTED-0 1 2}; do echo "GPU $i: H100 (UUID: GPU-$i)"; done\n'
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun"])
def test_more_processes_than_gpus_are_refused_where_the_gpus_can_be_counted(launcher, three_gpus, inputs):
    result = run_script("scripts/finetune_dpn.sh", PATH=three_gpus, LAUNCHER=launcher, **inputs)
    assert result.returncode == 1
    assert "GPUS=8, but this machine has 3: set GPUS=3" in result.stderr
    assert words_of("scripts/finetune_dpn.sh", PATH=three_gpus, LAUNCHER=launcher, GPUS="2", **inputs)
    assert words_of("scripts/finetune_dpn.sh", PATH=three_gpus, LAUNCHER="none", ZERO="none", **inputs)


def test_a_machine_without_a_working_gpu_is_told_so(three_gpus, inputs):
    result = run_script("scripts/finetune_dpn.sh", PATH=three_gpus, LISTED="", **inputs)
    assert result.returncode == 1
    assert "nvidia-smi finds no GPU; PRESET=toy needs none" in result.stderr


def test_chosen_gpus_are_kept_to_and_counted(three_gpus, inputs):
    words = words_of("scripts/finetune_dpn.sh", PATH=three_gpus, CUDA_VISIBLE_DEVICES="0,2", **inputs)
    assert words[:4] == ["torchrun", "--standalone", "--nproc_per_node", "2"]
    assert after(words, "--gradient_accumulation_steps") == "4"
    refused = run_script("scripts/finetune.sh", CUDA_VISIBLE_DEVICES="0,2", LAUNCHER="deepspeed", **inputs)
    assert "LAUNCHER=deepspeed doesn't keep to CUDA_VISIBLE_DEVICES: leave one out" in refused.stderr


def test_an_estimate_is_one_process_that_is_told_of_all_gpus_and_needs_no_data(tmp_path):
    meeting = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "node0", "BATCH": "8"}
    result = run_script("scripts/finetune_dpn.sh", "--estimate", "True", DRY_RUN="1", **meeting)
    words = result.stdout.splitlines()
    assert words[:3] == ["python", "-m", "llava.train"], result.stderr
    assert after(words, "--estimate_gpus") == "16"
    assert after(words, "--deepspeed") == "scripts/zero3.json"
