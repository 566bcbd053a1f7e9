"""Which accelerators this machine has, and which ones a job may use; loads no torch but where a job already has."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import torch

RENDEZVOUS = "ASR_DISTILL_RENDEZVOUS"
"""Environment variable by which the nodes of a job learn where they meet, `host:port`, and under which number."""
_claimed: list[IO[bytes]] = []
"""Open lock files: the lock ends with the process."""


def num_gpus() -> int:
    """Return the number of NVIDIA GPUs that jobs may use: those of CUDA_VISIBLE_DEVICES where it is set."""
    return len(_visible_gpus())


def claim_gpus(count: int = 1) -> None:
    """Make `count` GPUs that no other job of this machine has claimed the only visible ones, until the process ends.

    Does nothing where no more than that are visible, as a scheduler sees to it, and on a machine without GPUs.

    Raises:
        ValueError: when several are wanted and other jobs have claimed too many.
    """
    visible = _visible_gpus()
    if len(visible) <= count and ("CUDA_VISIBLE_DEVICES" in os.environ or not visible):
        return
    claimed = []
    for name in visible:
        lock = (Path(tempfile.gettempdir()) / f"asr-distill-gpu{name.replace('/', '_')}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        claimed.append((name, lock))
        if len(claimed) == count:
            _claimed.extend(lock for _, lock in claimed)
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(name for name, _ in claimed)
            return
    for _, lock in claimed:
        lock.close()
    if count > 1:
        raise ValueError(
            f"--processes: {count} GPUs are wanted, but other jobs leave {len(claimed)} of {len(visible)}; wait for "
            "them, or start fewer processes"
        )


def rank() -> int:
    """Return this process's number among those that train one model together, as torchrun numbers them."""
    return int(os.environ["RANK"]) if started_by_torchrun() else 0


def num_processes() -> int:
    """Return how many processes train one model together, on all machines."""
    return int(os.environ["WORLD_SIZE"]) if started_by_torchrun() else 1


def num_processes_here() -> int:
    """Return how many of them are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if started_by_torchrun() else 1


def started_by_torchrun() -> bool:
    """Return whether this process is one of those that train one model together."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def device_name(device: torch.device) -> str:
    """Return what people call a device that torch computes on: "NVIDIA H100", "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _visible_gpus() -> list[str]:
    """Return the names by which CUDA_VISIBLE_DEVICES calls the GPUs that jobs may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]
    return [str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
