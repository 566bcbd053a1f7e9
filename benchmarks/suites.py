"""What is measured in one run: which subjects on which shapes, and what we want to reach."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from benchmarks.data_parallel import data_parallel_subjects
from benchmarks.inputs import Shape
from benchmarks.lattice import LOSSES, SLOW, lattice_subjects, loss_subject
from benchmarks.measure import (
    BRIEF,
    QUICK,
    THOROUGH,
    Effort,
    Measurement,
    Precision,
    Setting,
    Subject,
    group_by_value,
    measure,
)
from benchmarks.training_step import MEDIUM, TINY, training_subjects

log = logging.getLogger(__name__)

MINI = Shape(name="mini", batch=16, frames=75, labels=36, vocabulary=129, joint=96)
SMALL = Shape(name="small", batch=4, frames=250, labels=60, vocabulary=1024, joint=640)
LARGE = Shape(name="large", batch=16, frames=400, labels=100, vocabulary=1024, joint=640)
TOY = Shape(name="toy", batch=2, frames=7, labels=4, vocabulary=11, joint=8)
SHORTEST = 0.5

SWEEPS = {
    "frames": (25, 75, 150, 300, 600),
    "labels": (9, 18, 36, 72, 144),
    "vocabulary": (32, 129, 512, 4096),
}
TOY_SWEEPS = {"frames": (4, 8), "labels": (3, 6), "vocabulary": (8, 16)}
SWEPT: tuple[tuple[str, Precision], ...] = (
    ("ours_transducer", "float32"),
    ("ours_transducer", "bf16"),
    ("torchaudio_transducer", "float32"),
    ("ours_divergence", "float32"),
    ("ours_divergence", "bf16"),
    ("plain_divergence", "float32"),
)

TOLERANCES: dict[Precision, tuple[float, float]] = {"float32": (1e-4, 3e-3), "bf16": (1e-2, 2e-2)}
"""Largest relative difference between subjects of equal value: of a loss, of a gradient's norm."""
NEGLIGIBLE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What one of our subjects is to reach."""

    times_products: float
    megabytes: float = float("inf")


GOALS = {
    ("mini", "ours_transducer"): Goal(times_products=3.0),
    ("mini", "ours_both"): Goal(times_products=3.5),
    ("small", "ours_transducer"): Goal(times_products=2.0, megabytes=150),
    ("small", "ours_divergence"): Goal(times_products=1.7, megabytes=150),
}
TRAINING_GOAL = 100.0
"""Seconds of speech per second of training, on one thread."""
DATA_PARALLEL_GOAL = 1.6
"""Utterances per second of two processes on two cores, as a multiple of those of one single-threaded process."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """How the command was called."""

    device: str
    threads: int
    quick: bool = False
    slow_peers: bool = False


@dataclass(frozen=True, kw_only=True)
class ShapeResults:
    """Everything that was measured on one shape, taking turns."""

    shape: Shape
    measurements: list[Measurement]
    axis: str = ""
    """In a sweep, what is varied."""


def lattice_results(request: Request) -> list[ShapeResults]:
    """Measure all losses on shapes whose utterances are all full, and on one with random lengths."""
    shapes = [TOY] if request.quick else [MINI, SMALL, *([LARGE] if request.device == "cuda" else [])]
    effort = QUICK if request.quick else THOROUGH
    shapes.insert(1, replace(shapes[0], name=f"{shapes[0].name}, lengths {SHORTEST:.0%} to 100%", shortest=SHORTEST))
    results = []
    for shape in shapes:
        slow = request.slow_peers and shape.name in (MINI.name, TOY.name)
        names = [name for name in LOSSES if name != SLOW or slow]
        results.append(_measured(shape, lattice_subjects(shape, names, precisions(request)), request, effort))
    return results


def sweep_results(request: Request) -> list[ShapeResults]:
    """Measure some losses on the first shape with one of its sizes varied at a time."""
    base, effort = (TOY, QUICK) if request.quick else (MINI, BRIEF)
    results = []
    for axis, values in (TOY_SWEEPS if request.quick else SWEEPS).items():
        for value in values:
            shape = replace(base, **{axis: value}, name=f"{axis} {value}")
            subjects = [loss_subject(shape, name, p) for name, p in SWEPT if p in precisions(request)]
            results.append(replace(_measured(shape, subjects, request, effort), axis=axis))
    return results


def training_results(request: Request) -> list[Measurement]:
    """Measure whole training steps; on a CPU with one thread, as the workflow trains."""
    size, effort = (TINY, QUICK) if request.quick else (MEDIUM, THOROUGH)
    log.info("training step: %s", size)
    setting = Setting(device=request.device, threads=1)
    return measure(training_subjects(size, precisions(request)), setting=setting, effort=effort)


def data_parallel_results(request: Request) -> list[Measurement]:
    """Measure the same training step in one process and in two, on CPUs, each with one thread."""
    size, effort = (TINY, QUICK) if request.quick else (MEDIUM, THOROUGH)
    log.info("data parallel: %s", size)
    return measure(data_parallel_subjects(size), setting=Setting(device="cpu", threads=1), effort=effort)


def precisions(request: Request) -> tuple[Precision, ...]:
    """Return float32, and bf16 where the hardware multiplies it."""
    able = torch.cpu.get_capabilities()
    fast = request.device == "cuda" or able.get("amx_bf16", False) or able.get("avx512_bf16", False)
    return ("float32", "bf16") if fast else ("float32",)


def check_agreement(measurements: list[Measurement]) -> None:
    """Check that subjects which say that they compute the same do so, losses and gradients.

    Raises:
        ValueError: naming the two that differ.
    """
    for value, group in group_by_value(measurements).items():
        for other in group[1:]:
            for difference, largest in _differences(group[0], other):
                if not difference <= largest:  # also where it is not a number
                    names = " and ".join(f"{m.subject.label} ({m.subject.precision})" for m in (group[0], other))
                    raise ValueError(
                        f"{value}: {names} differ by {difference:.1e}, more than {largest:.0e}; "
                        "one of them is wrong, so its time means nothing"
                    )


def _measured(shape: Shape, subjects: list[Subject], request: Request, effort: Effort) -> ShapeResults:
    log.info("%s", shape)
    setting = Setting(device=request.device, threads=request.threads)
    measurements = measure(subjects, setting=setting, effort=effort)
    check_agreement(measurements)
    return ShapeResults(shape=shape, measurements=measurements)


def _differences(reference: Measurement, other: Measurement) -> Iterator[tuple[float, float]]:
    """Yield relative differences and how large each may be."""
    loss, norm = TOLERANCES[other.subject.precision]
    for one, two in zip(reference.losses, other.losses, strict=True):
        yield abs(one - two) / max(abs(one), NEGLIGIBLE), loss
    for one, two in zip(reference.gradient_norms, other.gradient_norms, strict=True):
        yield abs(one - two) / max(abs(one), NEGLIGIBLE), norm
