"""The bill before the run: jobs, hours, wall time, memory and disk of a study at a scale, and what they rest on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_distill.dry_run import jobs_from_nothing
from asr_distill.experiment import AnyRun, load_experiment, nearest, read_yaml
from asr_distill.experiment.loading import Experiment
from asr_distill.planning.footprint import NGRAM_BYTES, Memory, disk, text_tokens
from asr_distill.planning.machines import CORE, DATA_PARALLEL, UTILISATION, Machine, gpu
from asr_distill.planning.prices import Priced, Pricing
from asr_distill.planning.speech import Speech, speech_of
from asr_distill.planning.workload import WORDS_PER_SECOND, pieces_per_word, vocabulary_of
from asr_distill.reporting.cost import wall_seconds
from asr_distill.reporting.grid import duration, plural, significant

CORES_OF_A_GPU = 8
"""CPU cores beside each GPU, where nobody says."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a plan is asked for."""

    scale: str
    study: str
    selection: str = "core"
    seeds: int = 1
    gpus: int = 1
    gpu: str = "h100"
    gpus_per_run: int = 1
    throughput: float | None = None
    """Of a GPU in training, 10^12 operations a second, as measured."""
    cores: int | None = None
    data: str | None = None
    """Folder of the real corpora, instead of the config's."""

    def machine(self) -> Machine:
        """Return what a job computes on.

        Raises:
            ValueError: for GPUs that contradict each other.
        """
        if self.gpus_per_run > max(1, self.gpus):
            raise ValueError(
                f"--gpus-per-run: {self.gpus_per_run} are more than there are; write --gpus {self.gpus_per_run}"
            )
        if not self.gpus and self.throughput is not None:
            raise ValueError("--throughput: is that of a GPU, and --gpus is 0; leave one of them out")
        return gpu(self.gpu, throughput=self.throughput) if self.gpus else CORE

    @property
    def num_cores(self) -> int:
        """Return the CPU cores: those asked for, else some for each GPU."""
        return self.cores if self.cores is not None else CORES_OF_A_GPU * max(1, self.gpus)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study takes at a scale."""

    choices: Choices
    experiment: Experiment
    machine: Machine
    speech: Mapping[str, Speech]
    jobs: Sequence[Priced]
    memory: Mapping[str, Memory]
    """Of each training run."""
    disk: Mapping[str, float]
    """Gigabytes, by what they hold."""

    @property
    def gpu_hours(self) -> float:
        """Return the hours of all jobs on GPUs, each times its GPUs."""
        return sum(job.gpus * job.seconds for job in self.jobs) / 3600

    @property
    def core_hours(self) -> float:
        """Return the hours of the jobs that need no GPU; without any, of all."""
        return sum(job.seconds for job in self.jobs if not job.gpus) / 3600

    @property
    def wall_seconds(self) -> float:
        """Return how long the jobs take together, as many at once as there are GPUs and cores."""
        jobs = [dataclasses.replace(priced.job, gpus=priced.gpus, threads=1) for priced in self.jobs]
        seconds = dict(enumerate(priced.seconds for priced in self.jobs))
        return wall_seconds(jobs, seconds=seconds, cores=self.choices.num_cores, gpus=self.choices.gpus)

    @property
    def largest(self) -> tuple[str, Memory]:
        """Return the run that takes most memory, and how much."""
        return max(self.memory.items(), key=lambda item: item[1].peak)


def make_plan(choices: Choices, *, root: Path) -> Plan:
    """Plan a study at a scale, with the configuration in the folder `root`; takes seconds and builds nothing.

    Raises:
        ValueError: one line that names what is wrong with the choices or the configuration.
    """
    machine = choices.machine()
    if not (root / "Snakefile").is_file():
        raise ValueError(f"{root.resolve()}: holds no Snakefile; call `asr-distill plan` in the repository's folder")
    config = read_yaml(root / "config/config.yaml") | {"scale": choices.scale, "studies": [choices.study]}
    config |= {"seeds": list(range(choices.seeds))} | ({"data": choices.data} if choices.data is not None else {})
    experiment = load_experiment(config, root=root)
    study = experiment.studies[choices.study]
    selections = study.selections()
    if choices.selection not in selections:
        raise ValueError(f"--selection: '{choices.selection}' is no part of it{nearest(choices.selection, selections)}")
    prepared = root / experiment.config.work / choices.scale / "corpus"
    speech = speech_of(experiment.scale.corpus, data=root / experiment.config.data, prepared=prepared)
    pricing = Pricing(experiment=experiment, speech=speech, machine=machine, sharers=choices.gpus_per_run)
    target = "all" if choices.selection == "core" else choices.selection
    jobs = pricing.price(jobs_from_nothing(target, config=config, root=root))
    chosen = study.restricted(selections[choices.selection]).runs
    runs = [experiment.run(choices.study, name, seed=seed) for name in chosen for seed in experiment.config.seeds]
    heard = {job.job.wildcards["part"] for job in jobs if job.job.rule.startswith("prepare")}
    return Plan(
        choices=choices,
        experiment=experiment,
        machine=machine,
        speech={part: size for part, size in speech.items() if part in heard},
        jobs=jobs,
        memory={run.name: pricing.memory(run) for run in runs},
        disk=disk(experiment.scale, speech={part: speech[part] for part in speech if part in heard}, runs=runs),
    )


def plan_text(plan: Plan) -> str:
    """Return a plan for people."""
    choices = plan.choices
    seeds = plural(choices.seeds, "seed")
    lines = [
        f"Plan: {choices.study} ({choices.selection}) at the scale {choices.scale}, {seeds}",
        plan.experiment.scale.description,
        "",
        *_table(plan),
        "",
        f"Together on {_places(plan)}: about {_long(plan.wall_seconds)}.",
        *_memory_lines(plan),
        *_disk_lines(plan),
        "",
        "What this rests on:",
        *(f"- {line}" for line in assumptions(plan)),
    ]
    return "\n".join(lines)


def _table(plan: Plan) -> list[str]:
    """Return jobs and hours by what they are for, as lines of equal columns."""
    kinds: dict[str, list[Priced]] = {}
    for job in plan.jobs:
        kinds.setdefault(job.kind, []).append(job)
    ordered = sorted(kinds.items(), key=lambda item: -sum(max(1, job.gpus) * job.seconds for job in item[1]))
    rows = [("what", "jobs", "GPU-hours", "core-hours", "longest job")]
    rows += [_cells(kind, jobs) for kind, jobs in ordered]
    rows.append(_cells("total", plan.jobs))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _cells(kind: str, jobs: Sequence[Priced]) -> tuple[str, ...]:
    on_gpus = sum(job.gpus * job.seconds for job in jobs) / 3600
    on_cores = sum(job.seconds for job in jobs if not job.gpus) / 3600
    longest = max(job.seconds for job in jobs)
    return (kind, str(len(jobs)), _hours(on_gpus), _hours(on_cores), _long(longest))


def _hours(hours: float) -> str:
    return "-" if not hours else f"{hours:,.0f}" if hours >= 100 else significant(max(hours, 0.01))


def _long(seconds: float) -> str:
    """Return a duration, from two days on in days."""
    return f"{seconds / 86400:.1f} days" if seconds >= 48 * 3600 else duration(seconds)


def _places(plan: Plan) -> str:
    choices = plan.choices
    cores = plural(choices.num_cores, "core")
    if not choices.gpus:
        return cores
    shared = f", {choices.gpus_per_run} to a training" if choices.gpus_per_run > 1 else ""
    return f"{plural(choices.gpus, 'GPU')} ({plan.machine.name}{shared}) and {cores}"


def _memory_lines(plan: Plan) -> list[str]:
    run, memory = plan.largest
    if not plan.choices.gpus:
        lines = [f"Memory of a training: up to {memory.peak:.1f} GB ({run})."]
    elif memory.at_once:
        pieces = f", its batch of {memory.batch} in {memory.pieces} pieces" if memory.pieces > 1 else ""
        lines = [f"Memory of a GPU: up to {memory.peak:.0f} GB of {plan.machine.gigabytes:.0f} GB ({run}{pieces})."]
    else:
        lines = [
            f"Memory of a GPU: {run} does not fit. It takes {memory.fixed:.1f} GB, and {memory.utterance:.1f} GB for "
            f"each utterance; {plan.machine.name} has {plan.machine.gigabytes:.0f} GB."
        ]
    if any(job.job.rule == "ngram" for job in plan.jobs):
        gigabytes = NGRAM_BYTES * text_tokens(plan.experiment.scale) / 1e9
        lines.append(f"Memory of the machine: {significant(gigabytes)} GB while the n-gram is estimated.")
    return lines


def _disk_lines(plan: Plan) -> list[str]:
    parts = ", ".join(f"{what} {_gigabytes(size)}" for what, size in plan.disk.items())
    return [f"Disk: {_gigabytes(sum(plan.disk.values()))} ({parts})."]


def _gigabytes(size: float) -> str:
    return f"{size:,.0f} GB" if size >= 10 else f"{significant(max(size, 0.01))} GB"


def assumptions(plan: Plan) -> list[str]:
    """Return what the figures of a plan rest on, a sentence or two each."""
    choices, machine = plan.choices, plan.machine
    counted = sum(part.measured for part in plan.speech.values())
    hours = sum(part.hours for part in plan.speech.values())
    kinds = {vocabulary_of(run.recogniser, plan.experiment.scale) for run in _runs(plan)}
    tokens = " and ".join(
        f"{WORDS_PER_SECOND * pieces_per_word(size):.1f} tokens of {size:,}" for size in sorted(kinds)
    )
    found = [
        f"Speech: {hours:,.0f} hours; {counted} of {len(plan.speech)} parts were counted here, the others are as "
        f"their publishers say, or assumed. A second of speech has {tokens}.",
        "Work: matrix products of encoders, predictors, lattices, decoders, teachers and BERT, from their sizes; looks "
        "at dev sets, checkpoints, waiting in a queue and repeated attempts are not counted.",
    ]
    if machine is CORE:
        return [
            *found,
            "Speed of a core: two numbers fitted to the recorded runs of the scale mini, on a core of an Intel Xeon "
            f"({machine.operations_per_second / 1e9:.0f}e9 operations a second and "
            f"{1000 * machine.layer_seconds:.1f} ms a layer). Large models may run faster; yours may be another core.",
        ]
    if machine.assumed:
        speed = f"{100 * UTILISATION:.0f} % of its peak, which is assumed: nothing of this was ever run on a GPU"
    else:
        speed = "as given by --throughput"
    found.append(
        f"Speed of a GPU: {machine.fast_operations_per_second / 1e12:.0f}e12 operations a second with bfloat16 "
        f"products ({speed}); half of that at lattice nodes; {1000 * machine.layer_seconds:.1f} ms a layer; a step of "
        f"a search {1000 * machine.search_seconds:.1f} ms. Measure some steps and give --throughput."
    )
    if choices.gpus_per_run > 1:
        found.append(f"GPUs that share a training keep {100 * DATA_PARALLEL:.0f} % of their speed, which is assumed.")
    if any(memory.pieces > 1 for memory in plan.memory.values()):
        found.append("Batches too large for a GPU go through it in pieces, whose gradients are summed.")
    return found


def _runs(plan: Plan) -> list[AnyRun]:
    study = plan.experiment.studies[plan.choices.study]
    return [study.runs[name] for name in plan.memory]
