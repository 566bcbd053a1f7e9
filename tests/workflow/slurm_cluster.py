"""A real SLURM cluster of one node: munged, slurmctld and slurmd on free ports, everything they write in one folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0
ReturnToService=2
KillWait=5
GresTypes=gpu
NodeName=localhost CPUs={cpus} RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=localhost Default=NO MaxTime=2-00:00:00 State=UP
PartitionName=gpu Nodes=localhost Default=NO MaxTime=1-00:00:00 State=UP
"""
GPUS = "NodeName=localhost Name=gpu File=/dev/null\nNodeName=localhost Name=gpu File=/dev/zero\n"
"""Two devices that SLURM counts and hands out as GPUs."""


class Cluster:
    """A running cluster; commands meant for it need its `environment`."""

    def __init__(self, folder: Path, *, cpus: int):
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        for name in ("state", "spool", "bin", "munge"):
            (folder / name).mkdir()
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        text = CONFIGURATION.format(folder=folder, cpus=cpus, **ports)
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text(GPUS)
        # The executor plugin takes every variable SLURM_* from srun, SLURM_CONF included.
        srun = folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self) -> None:
        """Start the daemons and wait until the node is ready."""
        self._start_munge()
        for name in ("slurmctld", "slurmd"):
            self.start(name, "-D")
        self.wait_until(lambda: set(self.ask("sinfo", "--noheader", "--format=%T").split()) == {"idle"})

    def ask(self, *command: str) -> str:
        """Return what a command of SLURM prints; nothing while the controller is down."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout

    def running(self) -> dict[str, str]:
        """Return the comment, the plugin's "rule_<name>_wildcards_...", of every running job, by job id."""
        lines = self.ask("squeue", "--noheader", "--states=RUNNING", "--format=%i %k").splitlines()
        return {job: comment.strip() for job, _, comment in (line.partition(" ") for line in lines)}

    def processes(self, job: str, *, word: str) -> list[int]:
        """Return the processes of a job whose command line holds a word."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                mine = f"\0SLURM_JOB_ID={job}\0".encode() in b"\0" + (folder / "environ").read_bytes()
                if mine and word.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it has just ended, or is nobody's business
                continue
        return found

    def stop(self, name: str) -> None:
        """Stop a daemon; a controller saves what it knows of its jobs."""
        self.daemons[name].terminate()
        self.daemons[name].wait()

    def start(self, *command: str, user: str | None = None) -> None:
        """Start a daemon in the foreground, again after `stop`."""
        with (self.folder / f"{command[0]}.out").open("ab") as output:
            self.daemons[command[0]] = subprocess.Popen(
                command,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
            )

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = 60) -> None:
        """Wait for a condition, at most so long."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [path.read_text()[-2000:] for path in self.folder.glob("*.log")]
                raise TimeoutError("\n".join(["the cluster does not get there", *logs]))
            time.sleep(0.1)

    def end(self) -> None:
        """Cancel what still runs and stop the daemons."""
        self.ask("scancel", "--user=root")
        self.ask("scancel", "--user=root", "--signal=KILL", "--full")
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            daemon.wait(timeout=20)

    def _start_munge(self) -> None:
        """Start munged as its own user; it wants its files in a folder that nobody else can write."""
        folder = self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        for path in (folder, folder / "key"):
            shutil.chown(path, "munge", "munge")
        files = [f"--{option}-file={folder / option}" for option in ("key", "pid", "log", "seed")]
        options = [*files, f"--socket={folder / 'socket'}"]
        self.start("munged", "--foreground", *options, user="munge")
        self.wait_until((folder / "socket").exists)


@contextmanager
def running_cluster(folder: Path, *, cpus: int = 2) -> Iterator[Cluster]:
    """Run a cluster with its files in a new folder."""
    folder.mkdir()
    folder.chmod(0o755)
    cluster = Cluster(folder, cpus=cpus)
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.end()


def missing() -> list[str]:
    """Return what this machine lacks for a cluster of its own."""
    tools = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]
    return tools if os.geteuid() == 0 else [*tools, "root"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
