"""Two machines on this one: namespaces with a network, a host name, processes and an sshd of their own.

Everything that is started in a machine ends with it, because it lives in the machine's process namespace.
Nothing outside is changed: /etc/hosts, /root/.ssh, /etc/slurm and /run are other files in there.
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
DEVICE = "eth0"
NAMES = ("node0", "node1")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PACKAGES = {
    "openssh-server": ("sshd", "ssh", "ssh-keygen"),
    "pdsh": ("pdsh",),
    "iproute2": ("ip",),
    "slurm-wlm": ("slurmctld", "slurmd", "sbatch", "srun", "scontrol"),
    "munge": ("munged",),
    "util-linux": ("unshare", "nsenter", "setpriv"),
}
CPU_RANKS = {
    "DS_ACCELERATOR": "cpu",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}


def require(*packages):
    """Skip, with what to install, where a tool of these Debian packages isn't there."""
    if os.geteuid() != 0:
        pytest.skip("namespaces and daemons need root")
    missing = [name for name in packages if any(shutil.which(tool) is None for tool in PACKAGES[name])]
    if missing:
        pytest.skip(f"not installed: apt-get install --no-install-recommends {' '.join(missing)}")


class Machine:
    """One of the two: a host name, an address, and what runs there."""

    def __init__(self, folder, name):
        self.name = name
        setup = [
            f"hostname {name}",
            "ip link set lo up",
            "mount -t tmpfs tmpfs /run && mkdir -p /run/sshd",
            f"mount --bind {folder}/hosts /etc/hosts",
            f"mount --bind {folder}/ssh /root/.ssh",
            "touch /run/ready",
            "exec sleep infinity",
        ]
        words = ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child"]
        words += ["--mount-proc", "sh", "-ec"]
        self.process = subprocess.Popen([*words, "\n".join(setup)])
        self.pid = wait_for(self._first_process, f"{name} doesn't start")
        wait_for(lambda: self.run("test", "-e", "/run/ready").returncode == 0, f"{name} isn't set up")

    def _first_process(self):
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return next(iter(map(int, file.read_text().split())), None)

    def inside(self, *words, variables=None):
        """Give the words that run a command in this machine, in the repository's root."""
        given = [f"{name}={value}" for name, value in (variables or {}).items()]
        enter = ["nsenter", "--target", str(self.pid), *NAMESPACES]
        return [*enter, "env", "--chdir", str(ROOT), *given, *map(str, words)]

    def run(self, *words, variables=None):
        command = self.inside(*words, variables=variables)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def start(self, *words, log, variables=None):
        """Start what goes on running; what it prints goes to a file."""
        with log.open("a") as out:
            command = self.inside(*words, variables=variables)
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def processes(self, *words):
        """Give the ids, in this machine, of the processes whose command line has these words."""
        found = self.run(
            "sh", "-c", "for d in /proc/[0-9]*; do echo ${d#/proc/} $(tr '\\0' ' ' <$d/cmdline); done"
        )
        lines = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
        return [int(number) for number, *rest in lines if rest and all(word in rest[0] for word in words)]

    def kill(self, process):
        assert self.run("kill", "-9", process).returncode == 0


@contextlib.contextmanager
def two_machines(folder):
    """Start two machines that reach each other by name over a cable; end them and all that runs there."""
    (folder / "ssh").mkdir(mode=0o700)
    home = Path("/root/.ssh")  # what is mounted over in the machines must be there
    is_new = not home.exists()
    home.mkdir(mode=0o700, exist_ok=True)
    lines = [f"{address} {name}" for address, name in zip(ADDRESSES, NAMES, strict=True)]
    (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    machines = []
    try:
        machines += [Machine(folder, name) for name in NAMES]
        first, second = (str(machine.pid) for machine in machines)
        cable = ["ip", "link", "add", DEVICE, "netns", first, "type", "veth", "peer", DEVICE, "netns", second]
        subprocess.run(cable, check=True)
        for machine, address in zip(machines, ADDRESSES, strict=True):
            for words in (["addr", "add", f"{address}/24", "dev", DEVICE], ["link", "set", DEVICE, "up"]):
                done = machine.run("ip", *words)
                assert done.returncode == 0, done.stderr
        yield machines
    finally:
        for machine in machines:
            machine.process.kill()  # its first process ends with it, and with that all others
            machine.process.wait()
        if is_new:
            home.rmdir()


def wait_for(condition, message, seconds=60):
    """Give what a condition gives as soon as that is true; fail with a message (or what gives one) else."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            pytest.fail(message() if callable(message) else message)
        time.sleep(0.1)
    return found


def tail(*files):
    """Give the last lines of logs, for a message."""
    return "\n".join(f"== {file.name}\n{file.read_text()[-6000:]}" for file in files if file.exists())
