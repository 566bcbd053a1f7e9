"""What the jobs of a dry run would cost, by the times that the same jobs, or others of their rules, took before."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from asr_distill.reporting.grid import duration, plural
from asr_distill.reporting.inputs import read_benchmark
from asr_distill.reporting.provenance import read_provenance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One job of a workflow."""

    rule: str
    benchmark: Path | None = None
    """Snakemake's benchmark file; None where the rule has none."""
    planned: bool = True
    """Whether it would run."""
    needs: tuple[int, ...] = ()
    """Places of the jobs that it waits for."""
    threads: int = 1
    gpus: int = 0
    wildcards: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What the job is about, such as its run and part."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long a job would take."""

    seconds: float
    """NaN where no job of its rule has a recorded time."""
    recorded: bool = False
    """Whether this very job has a recorded time; else it is the median of those of its rule that have one."""


def recorded_seconds(jobs: Sequence[Job], *, work: Path, published: Path) -> dict[int, float]:
    """Return the time that each job took when it last ran, where that is known: by place.

    Args:
        jobs: all jobs, planned or done.
        work: folder of the scale that holds benchmark files, as they are written here.
        published: folder of published results of the same scale, <study>/<selection>/provenance.json; read for jobs
            that never ran here.

    Raises:
        ValueError: naming a file that cannot be read.
    """
    elsewhere: dict[str, float] = {}
    for path in sorted(published.glob("*/*/provenance.json")):
        for name, job in read_provenance(path).get("jobs", {}).items():
            if job["seconds"] is not None:
                elsewhere.setdefault(name, job["seconds"])
    found = {}
    for place, job in enumerate(jobs):
        if job.benchmark is None or not job.benchmark.is_relative_to(work):
            continue
        name = job.benchmark.relative_to(work).with_suffix("").as_posix()
        seconds = read_benchmark(job.benchmark).seconds
        if math.isnan(seconds):
            seconds = elsewhere.get(name, math.nan)
        if not math.isnan(seconds):
            found[place] = seconds
    return found


def estimates(jobs: Sequence[Job], *, recorded: Mapping[int, float]) -> dict[int, Estimate]:
    """Return how long each planned job would take: its own recorded time, or the median of its rule's."""
    by_rule: dict[str, list[float]] = {}
    for place, seconds in recorded.items():
        by_rule.setdefault(jobs[place].rule, []).append(seconds)
    found = {}
    for place, job in enumerate(jobs):
        if not job.planned:
            continue
        if place in recorded:
            found[place] = Estimate(seconds=recorded[place], recorded=True)
        else:
            found[place] = Estimate(seconds=median(by_rule[job.rule]) if job.rule in by_rule else math.nan)
    return found


def wall_seconds(jobs: Sequence[Job], *, seconds: Mapping[int, float], cores: int, gpus: int) -> float:
    """Return how long some jobs take together, as many at once as cores and GPUs allow.

    Whenever a job ends, those that can start do, the one with the longest chain of jobs behind it first.

    Args:
        jobs: all jobs.
        seconds: of the jobs that run, by place.
        cores: for their threads; a job that wants more gets all.
        gpus: for those that want one.
    """
    behind: dict[int, list[int]] = {place: [] for place in seconds}
    for place in seconds:
        for other in set(jobs[place].needs) & seconds.keys():
            behind[other].append(place)
    chains = _chains(behind, seconds)
    waiting_for = {place: len(set(jobs[place].needs) & seconds.keys()) for place in seconds}
    ready = [(-chains[place], place) for place, others in waiting_for.items() if not others]
    running: list[tuple[float, int]] = []
    now, free_cores, free_gpus = 0.0, cores, gpus
    while ready or running:
        for entry in sorted(ready):
            place = entry[1]
            wanted, wanted_gpus = _wanted(jobs[place], cores=cores, gpus=gpus)
            if wanted <= free_cores and wanted_gpus <= free_gpus:
                ready.remove(entry)
                free_cores, free_gpus = free_cores - wanted, free_gpus - wanted_gpus
                heapq.heappush(running, (now + seconds[place], place))
        now, done = heapq.heappop(running)
        wanted, wanted_gpus = _wanted(jobs[done], cores=cores, gpus=gpus)
        free_cores, free_gpus = free_cores + wanted, free_gpus + wanted_gpus
        for place in behind[done]:
            waiting_for[place] -= 1
            if not waiting_for[place]:
                ready.append((-chains[place], place))
    return now


def _wanted(job: Job, *, cores: int, gpus: int) -> tuple[int, int]:
    return min(job.threads, cores), min(job.gpus, gpus)


def _chains(behind: Mapping[int, Sequence[int]], seconds: Mapping[int, float]) -> dict[int, float]:
    """Return the length of the longest chain of jobs that begins with each job."""
    chains: dict[int, float] = {}

    def length(place: int) -> float:
        if place not in chains:
            chains[place] = seconds[place] + max((length(other) for other in behind[place]), default=0.0)
        return chains[place]

    for place in behind:
        length(place)
    return chains


def cost_text(jobs: Sequence[Job], *, recorded: Mapping[int, float], cores: int, gpus: int) -> str:
    """Return what the planned jobs would cost, for people: by rule, in sum, and on so many cores and GPUs."""
    found = estimates(jobs, recorded=recorded)
    by_rule: dict[str, list[Estimate]] = {}
    for place, estimate in found.items():
        by_rule.setdefault(jobs[place].rule, []).append(estimate)
    rules = sorted(by_rule.items(), key=lambda item: (-_known_seconds(item[1]), item[0]))
    rows = [
        ("rule", "jobs", "recorded", "estimated", "unknown", "time"),
        *(_cells(rule, own) for rule, own in rules),
        _cells("total", list(found.values())),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    known = {place: estimate.seconds for place, estimate in found.items() if not math.isnan(estimate.seconds)}
    together = "No such job was recorded yet."
    if known:
        places = plural(cores, "core") + (f" and {plural(gpus, 'GPU')}" if gpus else "")
        whole = duration(wall_seconds(jobs, seconds=known, cores=cores, gpus=gpus))
        left_out = ", unknown jobs left out" if len(known) < len(found) else ""
        together = f"Together on {places}: about {whole}{left_out}."
    return "\n".join(["Time of these jobs:", *lines, together, EXPLANATION])


EXPLANATION = (
    "Recorded: what the job took when it last ran here, else for the published results, whatever its settings were. "
    "Estimated: median of the recorded jobs of the same rule. Unknown: there are none."
)


def _cells(label: str, own: Sequence[Estimate]) -> tuple[str, ...]:
    recorded = sum(estimate.recorded for estimate in own)
    unknown = sum(math.isnan(estimate.seconds) for estimate in own)
    counts = (len(own), recorded, len(own) - recorded - unknown, unknown)
    return (label, *map(str, counts), "?" if unknown == len(own) else duration(_known_seconds(own)))


def _known_seconds(own: Sequence[Estimate]) -> float:
    return sum(estimate.seconds for estimate in own if not math.isnan(estimate.seconds))
