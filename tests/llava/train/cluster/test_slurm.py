"""A real Slurm with two machines runs the batch file; the job is requeued and goes on from its checkpoint."""

import pytest

from tests.llava.train.cluster.machines import require, tail, wait_for
from tests.llava.train.cluster.runs import NO_PROGRESS, check_same_training

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]
SECONDS = 1500
CONFIGURATION = """
ClusterName=dpn
SlurmctldHost=node0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=node[0-1] CPUs=2 RealMemory=4000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def slurm(machines, tmp_path):
    """The machines under Slurm: a function that runs a client of it on the first one."""
    require("slurm-wlm", "munge")
    configuration = tmp_path / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=tmp_path))
    (tmp_path / "gres.conf").write_text("NodeName=node[0-1] Name=gpu Count=1 File=/dev/null\n")
    (tmp_path / "state").mkdir()
    key = tmp_path / "munge.key"
    key.write_bytes(bytes(range(128)))
    key.chmod(0o600)
    own = {"SLURM_CONF": str(configuration)}
    munge = [f"--key-file={key}", f"--socket={tmp_path}/munge", "--force", "--foreground"]
    munge += [f"--{name}-file={tmp_path}/munged.{name}" for name in ("pid", "log", "seed")]
    machines[0].start("munged", *munge, log=tmp_path / "munged.out")
    wait_for((tmp_path / "munge").exists, lambda: tail(tmp_path / "munged.out"))
    machines[0].start("slurmctld", "-D", log=tmp_path / "slurmctld.log", variables=own)
    for machine in machines:
        machine.start("slurmd", "-D", log=tmp_path / f"slurmd-{machine.name}.log", variables=own)

    def client(*words, variables=None):
        done = machines[0].run(*words, variables=(variables or {}) | own)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def are_idle():
        states = machines[0].run("sinfo", "--noheader", "--format=%T %D", variables=own).stdout
        return states.split() == ["idle", "2"]

    logs = [tmp_path / "slurmctld.log", *(tmp_path / f"slurmd-{machine.name}.log" for machine in machines)]
    wait_for(are_idle, lambda: tail(*logs), 120)
    return client


def test_a_requeued_job_of_two_machines_goes_on_and_learns_what_one_process_does(
    slurm, variables, alone, tmp_path
):
    del variables["GPUS"]  # Slurm says how many
    log = tmp_path / "job.log"
    less = ["--gpus-per-node=1", "--cpus-per-task=2", f"--output={log}", "--parsable"]
    words = ["sbatch", *less, "scripts/slurm/finetune_dpn.sbatch", *NO_PROGRESS]
    job = slurm(*words, variables=variables).strip()

    def state():
        shown = slurm("scontrol", "show", "job", job, "--oneliner").split()
        return next(word.removeprefix("JobState=") for word in shown if word.startswith("JobState="))

    def is_over():
        return state() not in {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}

    wait_for(lambda: is_over() or any((tmp_path / "out").glob("checkpoint-*")), lambda: tail(log), SECONDS)
    assert state() == "RUNNING", tail(log)
    assert " CPUs=4 " in slurm(
        "scontrol", "show", "step", f"{job}.0", "--oneliner"
    )  # 2 for each machine's task
    slurm("scontrol", "requeue", job)
    wait_for(is_over, lambda: tail(log), SECONDS)
    assert state() == "COMPLETED", tail(log)
    assert "going on from" in log.read_text()
    assert "Restarts=1" in slurm("scontrol", "show", "job", job, "--oneliner")
    check_same_training(tmp_path / "out", alone)
