"""What is compared: runs, the paper's tables, claims and figures; and the choices of one call of the workflow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import model_validator

from asr_distill.experiment.base import Condition, Count, Name, Positive, PositiveInt, Record
from asr_distill.experiment.runs import AnyRun, CTCRun, Run, needed_runs
from asr_distill.experiment.scale import Scale

Relation = Literal["<", "<=", "not <"]
GREEDY, ATTENTION = "greedy", "attention"
"""Searches of a CTC recogniser, beside beam_<size>."""


class Row(Record):
    """One row of a table: a run of ours beside a row as printed."""

    label: str
    run: str | None = None
    printed: str | None = None
    """Row as printed; <table>/<row> where it stands in another table of the paper than the table's own."""
    group: str = ""
    """What the row is about, where rows of several kinds of student share a table."""
    printed_memory: str = ""
    """What the paper says of the memory of training, beside which a table of costs shows ours."""


class Verdicts(Record):
    """What is asked about the runs of a table, beside which are best in each group: whether some upset an order."""

    order: tuple[str, ...]
    """Runs from the best to the worst, as the paper has them."""
    challengers: tuple[str, ...]
    """Each stands in for the worst: does it beat the others?"""

    @model_validator(mode="after")
    def _check(self) -> Verdicts:
        if len(self.order) < 2 or not self.challengers:
            raise ValueError("order, challengers: an order has two runs or more, and one run or more challenges it")
        return self


class Table(Record):
    """One table of a paper."""

    caption: str
    printed: str = ""
    """Key of the table in config/papers/; empty where each row names one, or none is printed."""
    rows: tuple[Row, ...]
    note: str = ""
    deviations: tuple[str, ...] = ()
    """What differs from the paper in this table alone."""
    core: bool = True
    """Part of what is built by default; `snakemake complete` builds the other tables too."""
    mean: bool = False
    """Show the mean over the columns that the paper's tables have, which is all that the paper prints of a run: the
    rows' keys are <row>@<column>."""
    cost: bool = False
    """Show the memory and the time that training took, as measured in this very run."""
    latency: bool = False
    """Show how late streaming runs write their words."""
    verdicts: Verdicts | None = None


class Comparison(Record):
    """Left and right are runs; the relation compares their word error rates."""

    left: str
    relation: Relation
    """"<" lower; "<=" at least as good (within the margin); "not <" not better (within the margin)."""
    right: str
    conditions: tuple[Condition, ...] = ()
    """Under which it must hold, instead of the claim's."""


class SpeedComparison(Record):
    """Two searches of CTC recognisers: the slow one takes at least so many times as long as the fast one."""

    slow: str
    """greedy, beam_<size> or attention."""
    fast: str
    at_least: Positive


class Claim(Record):
    """A statement of the paper and the comparisons that decide it."""

    statement: str
    reported: str
    """What the paper's own figures say."""
    conditions: tuple[Condition, ...] = ()
    """Under which each comparison of word error rates must hold that has none of its own."""
    comparisons: tuple[Comparison, ...] = ()
    speed: tuple[SpeedComparison, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Claim:
        if not self.comparisons and not self.speed:
            raise ValueError("comparisons: nothing decides the claim; name comparisons, or speed for searches")
        bare = [comparison for comparison in self.comparisons if not comparison.conditions]
        if bool(bare) != bool(self.conditions):
            raise ValueError("conditions: go with comparisons of word error rates; write both or neither")
        return self

    def compared(self) -> tuple[tuple[Condition, Comparison], ...]:
        """Return every comparison under every condition under which it must hold, by condition."""
        holds = [(comparison, comparison.conditions or self.conditions) for comparison in self.comparisons]
        conditions = dict.fromkeys([*self.conditions, *(name for _, names in holds for name in names)])
        return tuple((name, comparison) for name in conditions for comparison, names in holds if name in names)

    def runs(self) -> set[str]:
        """Return the runs whose word error rates decide the claim."""
        sides = (side for comparison in self.comparisons for side in (comparison.left, comparison.right))
        return {side.partition("@")[0] for side in sides}

    def searches(self) -> set[str]:
        """Return the searches whose speed decides the claim."""
        return {search for comparison in self.speed for search in (comparison.slow, comparison.fast)}

    def decidable(self, runs: Mapping[str, AnyRun]) -> bool:
        """Return whether these runs decide the claim: all that it names, and for its searches some that have them."""
        ctc = [run for run in runs.values() if run.recogniser == "ctc"]
        with_decoder = [run for run in ctc if run.decoder_transcribes]
        searched = with_decoder if ATTENTION in self.searches() else ctc
        return self.runs() <= runs.keys() and bool(searched or not self.speed)


class LatticeFigure(Record):
    """Whose posteriors the lattice figure shows, for the utterance of median length of a test part."""

    runs: tuple[str, ...]
    condition: Condition = "clean"


class Samples(Record):
    """Which transcripts the table of decoded samples shows, utterance by utterance."""

    systems: dict[str, str]
    """Name shown -> run, or <run>@<search>; in the order of the rows."""
    condition: Condition = "other"
    """Whose test part the utterances are of."""
    utterances: PositiveInt = 8
    compared: tuple[str, str]
    """Two systems: utterances are shown on which their transcripts differ."""

    @property
    def runs(self) -> set[str]:
        """Return the runs whose transcripts are shown or compared."""
        return {system.partition("@")[0] for system in (*self.systems.values(), *self.compared)}


class Listening(Record):
    """Whose transcripts stand in the report beside the sound of a few utterances."""

    systems: dict[str, str]
    """Name shown -> run, or <run>@<search>; in the order of the rows."""
    utterances: PositiveInt = 3
    """Of each test part that all runs are scored on; they are chosen by their ids alone."""

    def of(self, runs: Collection[str]) -> Listening | None:
        """Return what is left of it where there are only these runs; nothing without any."""
        systems = {label: system for label, system in self.systems.items() if system.partition("@")[0] in runs}
        return self.model_copy(update={"systems": systems}) if systems else None


class KnowledgeFigure(Record):
    """Whose attention decoders are shown beside BERT, for the utterance of median length of a test part."""

    runs: tuple[str, ...]
    condition: Condition = "clean"
    top: PositiveInt = 24
    """Tokens shown: those with the highest probabilities."""


class ShiftSweep(Record):
    """Streaming runs whose teacher is delayed by more and more, and others beside them in the same figure."""

    runs: tuple[str, ...]
    """In the order of their `teacher_shift_ms`."""
    others: tuple[str, ...] = ()


class WeakTeachers(Record):
    """Students of teachers of different quality, and what each gains over the same student without a teacher."""

    supervised: str
    students: tuple[str, ...]
    """Told apart by their teacher and their kind of target."""


class Study(Record):
    """What is compared."""

    title: str
    paper: str
    """Key of a file in config/papers/."""
    runs: dict[Name, AnyRun]
    tables: dict[Name, Table]
    sets: dict[Name, str] = {}
    """Sets of parts that runs may ask for beside labelled and unlabelled speech, and what is in them. At a scale whose
    corpus lacks one, the tables and claims that need it are left out."""
    claims: dict[Name, Claim] = {}
    figures: dict[str, tuple[str, ...]] = {}
    """Groups of runs for the plots by target kind: panel title -> runs."""
    generations: dict[str, tuple[str, ...]] = {}
    """Chains of runs each of which has the one before as its teacher: name of the chain -> runs, the common teacher
    first."""
    lattice: LatticeFigure | None = None
    samples: Samples | None = None
    listening: Listening | None = None
    knowledge: KnowledgeFigure | None = None
    aligned_by: str | None = None
    """Bi-directional run whose forced alignment tells where words end; emission latency is counted from there."""
    shift_sweep: ShiftSweep | None = None
    weak_teachers: WeakTeachers | None = None
    deviations: tuple[str, ...] = ()

    @property
    def measures_latency(self) -> bool:
        """Whether any table shows how late words are written."""
        return any(table.latency for table in self.tables.values())

    @property
    def recognisers(self) -> dict[Name, Run | CTCRun]:
        """Return the runs that transcribe speech: all but those that pre-train an encoder."""
        return {name: run for name, run in self.runs.items() if run.recogniser != "best_rq"}

    def selections(self) -> dict[str, tuple[str, ...]]:
        """Return what can be built and reported on: the core, everything, or one table; its name -> tables."""
        core = tuple(name for name, table in self.tables.items() if table.core)
        return {"core": core, "complete": tuple(self.tables)} | {name: (name,) for name in self.tables}

    def decided_by(self) -> dict[str, str]:
        """Return the smallest selection that decides each claim, by number of runs; none for a claim that none does."""
        parts = {name: self.restricted(tables) for name, tables in self.selections().items()}
        found: dict[str, str] = {}
        for name in sorted(parts, key=lambda selection: len(parts[selection].runs)):
            found = dict.fromkeys(parts[name].claims, name) | found
        return found

    def restricted(self, tables: Collection[str]) -> Study:
        """Return the part of the study that some of its tables need: their runs, and what these runs can decide."""
        kept = {name: table for name, table in self.tables.items() if name in tables}
        needed = {row.run.partition("@")[0] for table in kept.values() for row in table.rows if row.run is not None}
        if self.aligned_by is not None and any(table.latency for table in kept.values()):
            needed.add(self.aligned_by)
        waiting = list(needed)
        while waiting:
            further = set(needed_runs(self.runs[waiting.pop()])) - needed
            needed |= further
            waiting += further
        return self.part(kept, needed)

    def part(self, kept: Mapping[str, Table], needed: Collection[str]) -> Study:
        """Return the study with these tables and runs only, and what these runs can decide and show."""
        runs = {name: run for name, run in self.runs.items() if name in needed}
        figures = {title: tuple(run for run in group if run in needed) for title, group in self.figures.items()}
        shown = {"lattice": self.lattice, "samples": self.samples, "knowledge": self.knowledge}
        return self.model_copy(
            update={
                "runs": runs,
                "tables": dict(kept),
                "claims": {name: claim for name, claim in self.claims.items() if claim.decidable(runs)},
                "figures": {title: group for title, group in figures.items() if len(group) > 1},
                "generations": self._kept_generations(needed),
                **{name: part if part and set(part.runs) <= runs.keys() else None for name, part in shown.items()},
                "listening": self.listening and self.listening.of(needed),
                "shift_sweep": self._kept_sweep(kept, needed),
                "weak_teachers": self._kept_weak_teachers(needed),
            }
        )

    def _kept_generations(self, runs: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return what is left of the chains of generations, of those with two students or more."""
        kept = {name: tuple(run for run in chain if run in runs) for name, chain in self.generations.items()}
        return {name: chain for name, chain in kept.items() if len(chain) > 2}

    def _kept_sweep(self, tables: Mapping[str, Table], runs: Collection[str]) -> ShiftSweep | None:
        """Return the shift sweep of some runs: two shifts or more, where latency is measured."""
        if self.shift_sweep is None or not any(table.latency for table in tables.values()):
            return None
        groups = (self.shift_sweep.runs, self.shift_sweep.others)
        kept, others = (tuple(run for run in group if run in runs) for group in groups)
        return ShiftSweep(runs=kept, others=others) if len(kept) > 1 else None

    def _kept_weak_teachers(self, runs: Collection[str]) -> WeakTeachers | None:
        """Return the students of teachers of different quality among some runs: of two teachers or more."""
        if self.weak_teachers is None or self.weak_teachers.supervised not in runs:
            return None
        students = tuple(run for run in self.weak_teachers.students if run in runs)
        several = len({self.runs[run].teacher for run in students}) > 1
        return self.weak_teachers.model_copy(update={"students": students}) if several else None


def systems(study: Study, scale: Scale) -> dict[str, tuple[Name, str]]:
    """Return everything whose word errors are counted: its name -> run, and file below the run's folder.

    A run decoded in one way is a system of the same name. A CTC run is that for greedy search, and is followed by
    <run>@beam_<size>, where it has a decoder <run>@attention, and for every encoder layer below the final one
    <run>@layer_<n>, which the CTC head reads greedily.
    """
    found: dict[str, tuple[Name, str]] = {}
    for name, run in study.recognisers.items():
        found[name] = (name, "hypotheses.jsonl")
        if run.recogniser == "ctc":
            layers = range(1, scale.ctc_models[run.model].encoder.layers)
            others = [*searches(run, scale)[1:], *(f"layer_{layer}" for layer in layers)]
            found |= {f"{name}@{other}": (name, f"searches/{other}.jsonl") for other in others}
    return found


def timed_runs(study: Study, scale: Scale) -> tuple[Name, ...]:
    """Return the runs that tell when they write each word: streaming transducers, where the search is greedy."""
    if scale.decoding.method != "greedy":
        return ()
    transducers = [(name, run) for name, run in study.runs.items() if run.recogniser == "transducer"]
    return tuple(name for name, run in transducers if scale.models[run.model].encoder.streaming)


def searches(run: AnyRun, scale: Scale) -> tuple[str, ...]:
    """Return the searches that a CTC run is decoded by, all of which are timed; none for another run."""
    if run.recogniser != "ctc":
        return ()
    sizes = scale.language_models.search.beam_sizes if scale.language_models is not None else ()
    return (GREEDY, *(f"beam_{size}" for size in sizes), *((ATTENTION,) if run.decoder_transcribes else ()))


class Config(Record):
    """config/config.yaml: which scale, studies and seeds, and where things lie."""

    scale: str = "mini"
    studies: Literal["all"] | tuple[str, ...] = "all"
    """Files in config/studies/; all but those that the scale leaves out by default."""
    seeds: tuple[Count, ...] = (0,)
    data: str = "data"
    """Folder of the real corpora."""
    work: str = "work"
    results: str = "results"
    overrides: dict[str, Any] = {}
    """Merged into the scale, key by key: {phases: {teacher: {steps: 100}}}."""
