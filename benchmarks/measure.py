"""Wall time and peak memory of several subjects, each in a process of its own, taking turns over several rounds."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Precision = Literal["float32", "bf16"]
SIGKILL = 9


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how subjects compute."""

    device: str
    threads: int
    precision: Precision = "float32"
    """"bf16": matrix products may round their factors to bf16; sums stay in float32."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a subject does in one call, ready to be called."""

    call: Callable[[], Tensor]
    """Forward and backward pass; returns losses by utterance, (B,), detached; (0,) where there are none."""
    warm_up: Callable[[], object]
    """The same on a few nodes: loads the code and starts the threads."""
    leaves: tuple[Tensor, ...] = ()
    """Collect gradients."""
    note: str = ""
    memory: bool = True
    """Whether its peak memory says anything."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured. Sent to its process, so `prepare` must be picklable."""

    name: str
    label: str
    """For people."""
    prepare: Callable[[Setting], Task]
    precision: Precision = "float32"
    value: str = ""
    """Subjects of equal value compute the same losses."""
    products: int = 0
    """Matrix products of the size of the lattice that no implementation can do without."""


@dataclass(kw_only=True)
class Measurement:
    """What came out."""

    subject: Subject
    seconds: list[float] = field(default_factory=list)
    """One per timed call."""
    peak_bytes: int | None = None
    """Memory in use at the peak of the first call beyond what was in use before it."""
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    note: str = ""
    failure: str = ""
    """Why nothing was measured."""

    @property
    def minimum(self) -> float:
        """Shortest time, which other work on the machine disturbed least."""
        return min(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long to measure."""

    rounds: int
    visit_seconds: float
    """A subject repeats its call for about this long when its turn comes."""
    most_repeats: int
    limit_seconds: float
    """A subject that took longer in all sits out the rounds that are left."""


QUICK = Effort(rounds=1, visit_seconds=0, most_repeats=1, limit_seconds=60)
THOROUGH = Effort(rounds=7, visit_seconds=0.4, most_repeats=8, limit_seconds=60)
BRIEF = Effort(rounds=3, visit_seconds=0.3, most_repeats=4, limit_seconds=30)


class Unavailable(Exception):  # noqa: N818 - no error: a line in a table
    """A subject cannot be measured here, for the reason given."""


def measure(subjects: Iterable[Subject], *, setting: Setting, effort: Effort) -> list[Measurement]:
    """Measure all subjects in turn, round by round, so that what else the machine does hits all of them alike."""
    workers = []
    try:
        for subject in subjects:
            workers.append(_Worker(subject, setting))
        for turn in range(effort.rounds):
            for worker in workers if turn % 2 == 0 else reversed(workers):
                worker.visit(effort)
    finally:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end()
    return [worker.measurement for worker in workers]


class _Worker:
    """A subject's process, seen from ours. It sleeps between its turns."""

    def __init__(self, subject: Subject, setting: Setting):
        self.measurement = Measurement(subject=subject)
        self.spent = 0.0
        self.connection, other = multiprocessing.Pipe()
        setting = replace(setting, precision=subject.precision)
        self.process = _context().Process(target=_work, args=(other, subject, setting), daemon=True)
        self.process.start()
        other.close()
        first = self._receive()
        self.estimate = first.pop("seconds", 0.0)
        for name, value in first.items():
            setattr(self.measurement, name, value)
        log.info("%s (%s): %s", subject.label, subject.precision, self.measurement.failure or f"{self.estimate:.3f} s")

    def visit(self, effort: Effort) -> None:
        """Time some calls, unless the subject failed or has taken its time."""
        if self.measurement.failure or self.spent > effort.limit_seconds:
            return
        started = time.perf_counter()
        wanted = effort.visit_seconds / max(self.estimate, 1e-9)
        self.connection.send(max(1, min(effort.most_repeats, round(wanted))))
        answer = self._receive()
        self.measurement.failure = answer.get("failure", "")
        self.measurement.seconds += answer.get("seconds", [])
        self.spent += time.perf_counter() - started

    def end(self) -> None:
        """Wait until the process, whose connection is closed, has ended."""
        self.process.join(timeout=10)
        if self.process.is_alive():
            self.process.terminate()

    def _receive(self) -> dict[str, Any]:
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
        if self.process.exitcode == -SIGKILL:
            return {"failure": "out of memory"}
        subject = self.measurement.subject
        raise RuntimeError(f"{subject.label} ({subject.precision}) failed; its error stands above")


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes start: on Linux as forks of one that has imported torch and done nothing else."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.preloaded"])
    return context


def _work(connection: Connection, subject: Subject, setting: Setting) -> None:
    """Live as a subject's process: tell about the first call, then time calls for as long as somebody asks."""
    try:
        _configure(setting)
        task = subject.prepare(setting)
        connection.send(_first_call(task, device=setting.device))
        while True:
            connection.send({"seconds": _timed_calls(task, connection.recv(), device=setting.device)})
    except Unavailable as reason:
        connection.send({"failure": str(reason)})
    except (torch.OutOfMemoryError, MemoryError):
        connection.send({"failure": "out of memory"})
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # no more turns


def _configure(setting: Setting) -> None:
    torch.set_num_threads(setting.threads)
    torch.set_flush_denormal(True)  # denormal numbers slow a CPU's matrix products tenfold
    torch.set_float32_matmul_precision("medium" if setting.precision == "bf16" else "highest")
    torch.manual_seed(0)


def _first_call(task: Task, *, device: str) -> dict[str, Any]:
    """Return what the first call on the whole input computed and took, and the time of a second one."""
    task.warm_up()
    peak = _PeakMemory(device)
    losses = task.call()
    _synchronize(device)
    peak_bytes = peak.grown()
    answer = {
        "losses": losses.double().cpu().tolist(),
        "gradient_norms": [float(leaf.grad.double().norm()) for leaf in task.leaves if leaf.grad is not None],
        "peak_bytes": peak_bytes if task.memory else None,
        "note": task.note,
        "seconds": _timed_call(task, device=device),
    }
    _make_room(device)
    return answer


def _timed_calls(task: Task, repeats: int, *, device: str) -> list[float]:
    """Return the times of calls that follow one that is not counted: caches hold what others left there."""
    task.call()
    seconds = [_timed_call(task, device=device) for _ in range(repeats)]
    _make_room(device)
    return seconds


def _timed_call(task: Task, *, device: str) -> float:
    _synchronize(device)
    started = time.perf_counter()
    task.call()
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _make_room(device: str) -> None:
    """Give cached memory of a GPU back, for the subjects whose turn comes."""
    if device == "cuda":
        torch.cuda.empty_cache()


class _PeakMemory:
    """Growth of the largest memory in use since this object was made."""

    CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")

    def __init__(self, device: str):
        self.device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
            return
        _give_free_memory_back()
        self.resettable = True
        try:
            self.CLEAR.write_text("5")  # sets the high-water mark to what is in use now (man 5 proc)
        except OSError:
            self.resettable = False
        self.before = self._field("VmRSS") if self.resettable else _largest_resident()

    def grown(self) -> int:
        """Return bytes."""
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        return max(0, (self._field("VmHWM") if self.resettable else _largest_resident()) - self.before)

    def _field(self, name: str) -> int:
        lines = self.STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _give_free_memory_back() -> None:
    """Let go of memory that is free but still resident, or it would serve the call and not be counted."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # the GNU C library has it
    if trim is not None:
        trim(0)


def _largest_resident() -> int:
    """Return the largest resident memory so far; it misses what stays below an earlier peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def group_by_value(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Return those that computed losses, by what they say they compute."""
    groups: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        if measurement.subject.value and measurement.losses:
            groups.setdefault(measurement.subject.value, []).append(measurement)
    return groups
