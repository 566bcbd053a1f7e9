"""Which accelerators this machine has, and which one a job may use; loads no torch but where a job already has."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_claimed: list[IO[bytes]] = []
"""Open lock files: the lock ends with the process."""


def num_gpus() -> int:
    """Return the number of NVIDIA GPUs that jobs may use: those of CUDA_VISIBLE_DEVICES where it is set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def claim_gpu() -> None:
    """Make a GPU that no other job of this machine has claimed the only visible one, until the process ends.

    Leaves the choice to the scheduler where CUDA_VISIBLE_DEVICES is set, and does nothing on a machine without GPUs.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return
    for index in range(num_gpus()):
        lock = (Path(tempfile.gettempdir()) / f"asr-distill-gpu{index}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        _claimed.append(lock)
        os.environ["CUDA_VISIBLE_DEVICES"] = str(index)
        return


def device_name(device: torch.device) -> str:
    """Return what people call a device that torch computes on: "NVIDIA H100", "cpu"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
