"""Who works in a folder: locks that end with their process, however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that has a lock, or had it last."""

    pid: int
    host: str
    since: str
    """Local date and time."""
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}: {self.command}"


class Lock:
    """An exclusive lock on a file, which says who has it.

    It lasts until it is released or the process ends, killed or not. Processes that this one starts do not inherit it.
    """

    def __init__(self, path: Path):
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock unless another process has it, and tell whether this one has it now."""
        if self._descriptor is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(descriptor)
                raise
            # a file system without locks protects nobody, but must not keep anybody from working
        self._descriptor = descriptor
        return True

    def sign(self) -> None:
        """Write down who has the lock; it must have been acquired."""
        assert self._descriptor is not None, "acquire first"
        holder = Holder(
            pid=os.getpid(),
            host=socket.gethostname(),
            since=time.strftime("%Y-%m-%d %H:%M:%S"),
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200],
        )
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(holder)).encode(), 0)

    def holder(self) -> Holder | None:
        """Return who signed last, or None where nobody did or the file is damaged."""
        try:
            return Holder(**json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_workflow(folder: Path) -> tuple[Lock, str]:
    """Take the lock of a workflow's folder and clear what a workflow that was killed left of Snakemake's own.

    Args:
        folder: `.snakemake`.

    Returns:
        The lock, to be kept, and a line to tell the user; empty where all is as usual.

    Raises:
        ValueError: when another workflow has the lock, saying which.
    """
    lock = Lock(folder / "asr-distill.lock")
    last = lock.holder()
    if not lock.acquire():
        raise ValueError(f"another workflow runs in this folder ({last or 'unknown'}); wait for its end, or stop it")
    told = ""
    if any((folder / "locks").glob("*.lock")):
        if last is not None and last.host != socket.gethostname():
            return lock, (
                f"the folder was locked on another machine ({last}); if that workflow no longer runs, clear its lock "
                "with: snakemake --unlock"
            )
        shutil.rmtree(folder / "locks")
        told = f"cleared the lock of a workflow that was killed ({last or 'unknown'})"
    lock.sign()
    return lock, told


def lock_job(folder: Path, *, patience: float = 120.0) -> Lock:
    """Take the lock of a job's folder; a job that an earlier workflow left behind there is asked to save and leave.

    Args:
        folder: where the job keeps its state.
        patience: seconds that the other one is given.

    Raises:
        ValueError: when another process still has the folder after that, or has it on another machine.
    """
    lock = Lock(folder / "job.lock")
    started, asked = time.monotonic(), False
    while not lock.acquire():
        time.sleep(0.5)  # so that it has signed
        holder = lock.holder()
        elsewhere = holder is not None and holder.host != socket.gethostname()
        if elsewhere or time.monotonic() > started + patience:
            raise ValueError(f"{folder}: another job works here ({holder or 'unknown'}); stop it, then run again")
        if holder is not None and not asked:
            asked = True
            _ask_to_stop(holder.pid)
    lock.sign()
    return lock


def _ask_to_stop(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        return
