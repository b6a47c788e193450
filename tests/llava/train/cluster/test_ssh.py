"""DeepSpeed reaches two machines by ssh, with a hostfile; a rank of the other machine is killed."""

import subprocess

import pytest

from tests.llava.train.cluster.machines import CPU_RANKS, ROOT, require, tail, wait_for
from tests.llava.train.cluster.runs import NO_PROGRESS, check_same_training

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]
SECONDS = 1500


@pytest.fixture
def ssh_machines(machines, tmp_path):
    """The machines with sshd, and a key that opens both."""
    require("openssh-server", "pdsh")
    ssh = tmp_path / "ssh"
    for name in ("id_ed25519", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh / name], check=True)
    key = (ssh / "id_ed25519.pub").read_text()
    (ssh / "authorized_keys").write_text(key)
    host = " ".join((ssh / "host.pub").read_text().split()[:2])
    (ssh / "known_hosts").write_text("".join(f"{machine.name} {host}\n" for machine in machines))
    settings = [f"HostKey {ssh}/host", "UsePAM no", "PermitRootLogin prohibit-password", "PidFile none"]
    (tmp_path / "sshd_config").write_text("\n".join([*settings, "StrictModes no", ""]))
    for machine in machines:
        machine.start("/usr/sbin/sshd", "-D", "-e", "-f", tmp_path / "sshd_config", log=tmp_path / "sshd.log")
    for machine in machines:
        reached = lambda name=machine.name: machines[0].run("ssh", name, "hostname").stdout.strip() == name  # noqa: E731
        wait_for(reached, lambda: tail(tmp_path / "sshd.log"))
    return machines


def test_deepspeed_reaches_the_machines_of_a_hostfile_and_goes_on_after_kill_9(
    ssh_machines, variables, alone, tmp_path
):
    hosts = tmp_path / "hostfile"
    hosts.write_text("".join(f"{machine.name} slots=1\n" for machine in ssh_machines))
    # Of the variables, ssh carries none; those for all machines stand in a file that DeepSpeed reads.
    (tmp_path / "environment").write_text("".join(f"{name}={value}\n" for name, value in CPU_RANKS.items()))
    settings = variables | {"HOSTFILE": str(hosts), "DS_ENV_FILE": str(tmp_path / "environment")}
    first, second = ssh_machines
    words = ["bash", ROOT / "scripts/finetune_dpn.sh", *NO_PROGRESS]
    log = tmp_path / "launch.log"

    launch = first.start(*words, log=log, variables=settings)
    wait_for(
        lambda: launch.poll() or any((tmp_path / "out").glob("checkpoint-*")), lambda: tail(log), SECONDS
    )
    assert launch.poll() is None, tail(log)
    (rank,) = second.processes("-m llava.train", "--local_rank=0")
    second.kill(rank)
    assert launch.wait(300) != 0
    assert not (tmp_path / "out" / "trainer_state.json").exists()

    again = first.start(*words, log=tmp_path / "again.log", variables=settings)
    assert again.wait(SECONDS) == 0, tail(tmp_path / "again.log")
    assert "going on from" in (tmp_path / "again.log").read_text()
    check_same_training(tmp_path / "out", alone)
