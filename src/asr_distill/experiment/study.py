"""What is compared: runs, the paper's tables, claims and figures; and the choices of one call of the workflow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import model_validator

from asr_distill.experiment.base import Condition, Count, Name, Positive, PositiveInt, Record
from asr_distill.experiment.runs import AnyRun
from asr_distill.experiment.scale import Scale

Relation = Literal["<", "<=", "not <"]
GREEDY, ATTENTION = "greedy", "attention"
"""Searches of a CTC recogniser, beside beam_<size>."""


class Row(Record):
    """One row of a table: a run of ours beside a row as printed."""

    label: str
    run: str | None = None
    printed: str | None = None


class Table(Record):
    """One table of a paper."""

    caption: str
    printed: str
    """Key of the table in config/papers/."""
    rows: tuple[Row, ...]
    note: str = ""
    core: bool = True
    """Part of what is built by default; `snakemake complete` builds the other tables too."""


def printed_row(printed: dict[str, Any], table: Table, key: str) -> list[float]:
    """Return a row as the paper prints it; where a row holds several ways of decoding, the key is <row>@<way>."""
    name, _, decoder = key.partition("@")
    row = printed["tables"][table.printed][name]
    return row[decoder or "greedy"] if isinstance(row, dict) else row


class Comparison(Record):
    """Left and right are runs; the relation compares their word error rates."""

    left: str
    relation: Relation
    """"<" lower; "<=" at least as good (within the margin); "not <" not better (within the margin)."""
    right: str


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
    """Under which each comparison of word error rates must hold."""
    comparisons: tuple[Comparison, ...] = ()
    speed: tuple[SpeedComparison, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Claim:
        if not self.comparisons and not self.speed:
            raise ValueError("comparisons: nothing decides the claim; name comparisons, or speed for searches")
        if bool(self.comparisons) != bool(self.conditions):
            raise ValueError("conditions: go with comparisons of word error rates; write both or neither")
        return self

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


class KnowledgeFigure(Record):
    """Whose attention decoders are shown beside BERT, for the utterance of median length of a test part."""

    runs: tuple[str, ...]
    condition: Condition = "clean"
    top: PositiveInt = 24
    """Tokens shown: those with the highest probabilities."""


class Study(Record):
    """What is compared."""

    title: str
    paper: str
    """Key of a file in config/papers/."""
    runs: dict[Name, AnyRun]
    tables: dict[Name, Table]
    claims: dict[Name, Claim] = {}
    figures: dict[str, tuple[str, ...]] = {}
    """Groups of runs for the plots by target kind: panel title -> runs."""
    lattice: LatticeFigure | None = None
    samples: Samples | None = None
    knowledge: KnowledgeFigure | None = None
    deviations: tuple[str, ...] = ()

    def selections(self) -> dict[str, tuple[str, ...]]:
        """Return what can be built and reported on: the core, everything, or one table; its name -> tables."""
        core = tuple(name for name, table in self.tables.items() if table.core)
        return {"core": core, "complete": tuple(self.tables)} | {name: (name,) for name in self.tables}

    def restricted(self, tables: Collection[str]) -> Study:
        """Return the part of the study that some of its tables need: their runs, and what these runs can decide."""
        kept = {name: table for name, table in self.tables.items() if name in tables}
        needed = {row.run.partition("@")[0] for table in kept.values() for row in table.rows if row.run is not None}
        waiting = list(needed)
        while waiting:
            teacher = self.runs[waiting.pop()].teacher
            if teacher is not None and teacher not in needed:
                needed.add(teacher)
                waiting.append(teacher)
        runs = {name: run for name, run in self.runs.items() if name in needed}
        figures = {title: tuple(run for run in group if run in needed) for title, group in self.figures.items()}
        shown = {"lattice": self.lattice, "samples": self.samples, "knowledge": self.knowledge}
        return self.model_copy(
            update={
                "runs": runs,
                "tables": kept,
                "claims": {name: claim for name, claim in self.claims.items() if claim.decidable(runs)},
                "figures": {title: group for title, group in figures.items() if group},
                **{name: part if part and needed.issuperset(part.runs) else None for name, part in shown.items()},
            }
        )


def systems(study: Study, scale: Scale) -> dict[str, tuple[Name, str]]:
    """Return everything whose word errors are counted: its name -> run, and file below the run's folder.

    A run decoded in one way is a system of the same name. A CTC run is that for greedy search, and is followed by
    <run>@beam_<size>, where it has a decoder <run>@attention, and for every encoder layer below the final one
    <run>@layer_<n>, which the CTC head reads greedily.
    """
    found: dict[str, tuple[Name, str]] = {}
    for name, run in study.runs.items():
        found[name] = (name, "hypotheses.jsonl")
        if run.recogniser == "ctc":
            layers = range(1, scale.ctc_models[run.model].encoder.layers)
            others = [*searches(run, scale)[1:], *(f"layer_{layer}" for layer in layers)]
            found |= {f"{name}@{other}": (name, f"searches/{other}.jsonl") for other in others}
    return found


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
