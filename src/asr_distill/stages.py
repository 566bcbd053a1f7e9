"""What all stages of the command line share: their options, log lines, threads, and the accelerator."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from asr_distill.devices import claim_gpus, num_processes_here, rank, started_by_torchrun

PR_SET_PDEATHSIG = 1
"""Of <sys/prctl.h>: which signal a process gets when its parent ends."""

Log = Annotated[Path | None, typer.Option(help="File for log lines; standard error where there is none.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


def start(log: Path | None, *, threads: int | None = None) -> None:
    """Send log lines to their file; where torch is used, give it exactly the threads of the job.

    Of several processes that train one model, the first logs what goes on, the others what goes wrong, and each takes
    its part of the threads.
    """
    handlers = [logging.FileHandler(log, mode="a", encoding="utf-8")] if log else None
    who = f"process {rank()}: " if rank() else ""
    form = f"%(asctime)s %(levelname)s {who}%(message)s"
    level = logging.WARNING if rank() else logging.INFO
    logging.basicConfig(level=level, format=form, datefmt="%H:%M:%S", handlers=handlers, force=True)
    if threads is None:
        return
    threads = max(1, threads // num_processes_here())
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if started_by_torchrun():
        _end_with_parent()
    else:
        claim_gpus()
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # denormal numbers slow a CPU's matrix products tenfold


def _end_with_parent() -> None:
    """Ask Linux for a SIGTERM when torchrun is gone, so that no process trains on without it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def device() -> str:
    """Return the accelerator that `start` left to this job, or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def all_texts(references: list[Path]) -> set[str]:
    """Return every transcript in references.jsonl of prepared parts."""
    return {text for path in references for text in read_texts([path]).values()}


def read_texts(references: list[Path]) -> dict[str, str]:
    """Return the transcripts in references.jsonl of prepared parts, by utterance id."""
    import json

    lines = [json.loads(line) for path in references for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: line["text"] for line in lines}
