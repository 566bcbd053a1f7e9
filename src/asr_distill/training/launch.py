"""Starting one training process per GPU: `asr-distill train` calls itself as torchrun's agent, on every node of a job.

torch is loaded only where there are several processes to start.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from asr_distill.devices import RENDEZVOUS, claim_gpus, num_gpus
from asr_distill.experiment import RunRecord
from asr_distill.training.shares import check_divisible

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

log = logging.getLogger(__name__)

LOST_OTHERS = 76
"""Exit status of a process that ends because another one did."""
STOPPED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, once the state is saved."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the processes of a training run."""

    processes: int = 1
    """On each node, one per GPU."""
    nodes: int = 1
    threads: int = 1
    """CPU threads of a node, which its processes divide among themselves."""

    @property
    def world(self) -> int:
        """Number of all processes."""
        return self.processes * self.nodes

    def check(self, run: RunRecord) -> None:
        """Refuse what cannot work, before anything is loaded.

        Raises:
            ValueError: when there are fewer GPUs, or without GPUs fewer threads, than processes; when the batch cannot
                be divided; when several nodes are asked for outside a SLURM job that has them.
        """
        gpus, processes = num_gpus(), self.processes
        if gpus and processes > gpus:
            raise ValueError(f"--processes: {processes} is more than the {gpus} GPUs that this job has; write {gpus}")
        if not gpus and processes > self.threads:
            raise ValueError(
                f"--processes: {processes} without a GPU is more than --threads {self.threads}; each needs a thread"
            )
        check_divisible(run.phase, world=self.world, name=run.run.phase)
        given, _ = _slurm_nodes() if self.nodes > 1 else (1, "")
        if self.nodes > given and RENDEZVOUS not in os.environ:
            raise ValueError(
                f"--nodes: {self.nodes} is more than the {given} of this job; ask SLURM for them, or start the same "
                f"command on every node with {RENDEZVOUS}=HOST:PORT/NAME, HOST being one of them"
            )


def launch(layout: Layout) -> None:
    """Start this command once per GPU on all nodes, and return when all processes have ended well.

    Raises:
        ValueError: with what the user should know of the process that failed first.
        SystemExit: 143 when training was stopped by SIGTERM and saved, likewise with other signals' numbers.
    """
    if layout.nodes > 1 and RENDEZVOUS not in os.environ:
        _on_all_nodes(layout)
    claim_gpus(layout.processes)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or each process warns that DDP looks for unused parameters
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    _hush("torch.distributed.elastic")  # it tells of every process that it ends; we say which one failed, and how
    endpoint, _, name = os.environ.get(RENDEZVOUS, f"localhost:0/{uuid.uuid4()}").partition("/")
    with tempfile.TemporaryDirectory(prefix="asr-distill-") as folder, _forwarding_sigterm():
        config = LaunchConfig(
            min_nodes=layout.nodes,
            max_nodes=layout.nodes,
            nproc_per_node=layout.processes,
            run_id=name or "asr-distill",
            rdzv_backend="c10d",
            rdzv_endpoint=endpoint,
            max_restarts=0,  # the workflow restarts a job; it goes on from the checkpoint
            signals_to_handle="SIGINT,SIGHUP,SIGQUIT",
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "asr_distill", *sys.argv[1:])
        except ChildFailedError as error:
            _explain(error.failures)
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None


def _on_all_nodes(layout: Layout) -> NoReturn:
    """Become `srun`, which starts this command on every node of the SLURM job; there it finds where to meet."""
    if shutil.which("srun") is None:
        raise ValueError(f"--nodes: {layout.nodes} nodes need srun, which is not installed here")
    names = ["scontrol", "show", "hostnames", _slurm_nodes()[1]]
    head = subprocess.run(names, check=True, capture_output=True, text=True).stdout.split()[0]
    job = os.environ["SLURM_JOB_ID"]
    os.environ[RENDEZVOUS] = f"{head}:{20_000 + int(job) % 10_000}/{job}"
    spread = ["--overlap", "--kill-on-bad-exit=1", f"--nodes={layout.nodes}", f"--ntasks={layout.nodes}"]
    spread += ["--ntasks-per-node=1", f"--cpus-per-task={layout.threads}"]
    spread += [f"--gpus-per-node={layout.processes}"] if num_gpus() else []
    os.execvp("srun", ["srun", *spread, sys.executable, "-m", "asr_distill", *sys.argv[1:]])


def _slurm_nodes() -> tuple[int, str]:
    """Return how many nodes this SLURM job has, and which; (1, "") outside a job."""
    if "SLURM_JOB_NUM_NODES" in os.environ:
        return int(os.environ["SLURM_JOB_NUM_NODES"]), os.environ.get("SLURM_JOB_NODELIST", "")
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or shutil.which("squeue") is None:
        return 1, ""
    # Snakemake's SLURM plugin takes these variables from its jobs
    ask = ["squeue", "--noheader", f"--jobs={job}", "--format=%D %N"]
    number, _, names = subprocess.run(ask, check=False, capture_output=True, text=True).stdout.strip().partition(" ")
    return (int(number), names.strip()) if number.isdigit() else (1, "")


def _hush(library: str) -> None:
    """Let the loggers of a library, which have levels of their own, say nothing."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(library):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def _forwarding_sigterm() -> Iterator[None]:
    """Hand SIGTERM on to the processes and wait until they have saved; torchrun alone would kill them after 30 s."""
    import psutil

    def forward(*_: object) -> None:
        for child in psutil.Process().children():
            child.terminate()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explain(failures: Mapping[int, ProcessFailure]) -> NoReturn:
    """Say which process failed first, and how; those that ended because another did are not named."""
    codes = {failure.exitcode for failure in failures.values()}
    if codes <= {STOPPED, -signal.SIGTERM}:
        raise SystemExit(STOPPED)
    consequences = {LOST_OTHERS, STOPPED, -signal.SIGTERM}
    causes = {rank: failure for rank, failure in failures.items() if failure.exitcode not in consequences}
    if not causes:
        raise ValueError(
            "training lost a process on another node; see its log. The next attempt goes on from the newest checkpoint"
        )
    rank, cause = min(causes.items(), key=lambda item: (item[1].exitcode > 0, item[1].timestamp, item[0]))
    if isinstance(cause.message, dict):
        raise ValueError(cause.message["message"])
    how = f"was killed by {cause.signal_name()}" if cause.exitcode < 0 else f"ended with exit status {cause.exitcode}"
    hint = ", perhaps for want of memory" if cause.exitcode == -signal.SIGKILL else "; see its error above"
    raise ValueError(f"process {rank} {how}{hint}. The next attempt goes on from the newest checkpoint")
