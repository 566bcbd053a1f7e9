"""What all stages of the command line share: their options, log lines, threads, and the accelerator."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from asr_distill.devices import claim_gpu

Log = Annotated[Path | None, typer.Option(help="File for log lines; standard error where there is none.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


def start(log: Path | None, *, threads: int | None = None) -> None:
    """Send log lines to their file; where torch is used, give it exactly the threads of the job."""
    handlers = [logging.FileHandler(log, mode="a", encoding="utf-8")] if log else None
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, datefmt="%H:%M:%S", handlers=handlers, force=True)
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    claim_gpu()
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # denormal numbers slow a CPU's matrix products tenfold


def device() -> str:
    """Return the accelerator that `start` left to this job, or "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def read_texts(references: list[Path]) -> dict[str, str]:
    """Return the transcripts in references.jsonl of prepared parts, by utterance id."""
    import json

    lines = [json.loads(line) for path in references for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["id"]: line["text"] for line in lines}
