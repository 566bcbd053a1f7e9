"""Training steps of our two-million-parameter transducer in one process of one thread, and in two such processes.

`python -m benchmarks.data_parallel PORT SIZE` is the second of the two; the first starts it, and it steps along.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from asr_distill.experiment import Phase
from asr_distill.training.optimisation import make_optimizer
from asr_distill.training.ranks import Ranks
from benchmarks.measure import Setting, Subject, Task
from benchmarks.training_step import MEDIUM, TINY, Ours, Size, make_batch, prepare_step

PROCESSES = 2
_started: list[subprocess.Popen] = []
"""Second processes, which end by themselves."""


def data_parallel_subjects(size: Size) -> list[Subject]:
    """Return training steps on the same batch in one process and, each with its half, in two."""
    return [
        Subject(name="one", label="one process", prepare=functools.partial(prepare_step, "ours", size)),
        Subject(name="two", label="two processes, gloo", prepare=functools.partial(prepare_two, size)),
    ]


def prepare_two(size: Size, setting: Setting) -> Task:
    """Return a training step of two processes, of which this one is the first; called in the subject's process."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    _started.append(subprocess.Popen([sys.executable, "-m", "benchmarks.data_parallel", str(port), size.name]))
    step = join(0, port=port, size=size)
    return Task(call=step, warm_up=step, memory=False)


def join(rank: int, *, port: int, size: Size) -> Callable[[], Tensor]:
    """Meet the other process, and return a step that both must take."""
    settings = {"WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "RANK": rank, "LOCAL_RANK": rank}
    settings |= {"GROUP_RANK": 0, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "benchmark"}
    os.environ |= {name: str(value) for name, value in settings.items()} | {"CUDA_VISIBLE_DEVICES": ""}
    phase = Phase(steps=1, batch_utterances=size.batch, learning_rate=1e-4, warmup_steps=0)
    ranks, system = Ranks(phase), Ours(size).train()
    module, optimizer = ranks.setup(system), make_optimizer(system, phase=phase)
    batch = make_batch(replace(size, batch=size.batch // PROCESSES))

    def step() -> Tensor:
        ranks.wait()  # so that the second sleeps until the first has its turn
        losses = module(batch)
        optimizer.zero_grad(set_to_none=True)
        ranks.fabric.backward(losses.mean())
        optimizer.step()
        return losses.detach()

    return step


def _follow(port: int, name: str) -> None:
    """Step along as the second process until the first has ended."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    step = join(1, port=port, size={size.name: size for size in (MEDIUM, TINY)}[name])
    try:
        while True:
            step()
    except RuntimeError:  # the first has closed its connections
        return


if __name__ == "__main__":
    _follow(int(sys.argv[1]), sys.argv[2])
