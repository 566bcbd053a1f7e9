"""One of the processes of test_ranks.py: trains, with the others, every run of a list, and spoils what it is told to.

`python rank_worker.py FILE` with the environment that torchrun would set; FILE holds a JSON list of `Job`s.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

import torch
import yaml

from asr_distill.devices import rank
from asr_distill.experiment import RunRecord
from asr_distill.training import build, data
from asr_distill.training import loop as module
from asr_distill.training.loop import Trainer, TrainingPaths, train
from asr_distill.training.objective import Objective
from asr_distill.training.shares import divide

PATIENCE = 100
"""Seconds after which a process that waits for the other gives up, and says where it waited."""


@dataclass(kw_only=True)
class Job:
    """A training run, and what goes wrong in it."""

    run: str
    """YAML text."""
    paths: dict[str, object]
    port: int = 0
    spoilt: list[tuple[int, int]] = field(default_factory=list)
    """(step, share) whose loss is not a number; steps count from 0."""
    refused: bool = False
    """Whether such a loss is refused by an error instead."""
    as_two: bool = False
    """Whether one process takes, in turn, the shares of two."""
    stopped_after: int = 0
    """Step after which the last process gets SIGTERM."""


def main(path: Path) -> None:
    """Train all runs."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    for values in json.loads(path.read_text()):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)  # anew for every run
        job = Job(**values)
        os.environ["MASTER_PORT"] = str(job.port)
        train_disturbed(job)


def train_disturbed(job: Job) -> None:
    """Train a run in this process, in which things go wrong as the job says."""
    paths = {name: [Path(p) for p in x] if isinstance(x, list) else x and Path(x) for name, x in job.paths.items()}
    paths = TrainingPaths(**paths)
    before = signal.getsignal(signal.SIGTERM)
    with (
        mock.patch.object(module, "CURVE_EVERY", 1),
        mock.patch.object(build, "Objective", _spoilt(job)),
        mock.patch.object(Trainer, "_record", _stopping(job)),
        mock.patch.object(data, "divide", _divide_as_two if job.as_two else divide),
    ):
        try:
            train(RunRecord.model_validate(yaml.safe_load(job.run)), paths=paths)
        except SystemExit as end:
            (paths.output / f"exit{rank()}").write_text(str(end.code))
        except ValueError as error:
            (paths.output / f"error{rank()}").write_text(str(error))
        finally:
            signal.signal(signal.SIGTERM, before)
            if torch.distributed.is_initialized():  # after an error, which ends a process otherwise
                torch.distributed.destroy_process_group()


def as_json(jobs: list[Job]) -> str:
    """Return jobs as the file that this program reads."""
    return json.dumps([asdict(job) for job in jobs], default=str)


def _spoilt(job: Job) -> type[Objective]:
    class Spoilt(Objective):
        def forward(self, batch, *, generator, ctc_only):
            loss = super().forward(batch, generator=generator, ctc_only=ctc_only)
            seeds = {module._step_seed(1_000_003, step, share) for step, share in job.spoilt}
            if generator.initial_seed() not in seeds:
                return loss
            if job.refused:
                raise module.NonFiniteError("spoilt")
            return loss * float("nan")

    return Spoilt


def _divide_as_two(items, *, rank, world, largest):
    return sorted((share for rank in (0, 1) for share in divide(items, rank=rank, world=2)), key=lambda share: share[0])


def _stopping(job: Job):
    record = Trainer._record

    def recording(trainer, loss):
        record(trainer, loss)
        if trainer.position.step == job.stopped_after and trainer.ranks.rank == trainer.ranks.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return recording


if __name__ == "__main__":
    main(Path(sys.argv[1]))
