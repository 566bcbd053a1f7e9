"""What is compared: runs, the paper's tables, claims and figures; and the choices of one call of the workflow."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from asr_distill.experiment.base import Condition, Count, Name, Record
from asr_distill.experiment.language_models import LanguageModels
from asr_distill.experiment.runs import AnyRun

Relation = Literal["<", "<=", "not <"]


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


class Claim(Record):
    """A statement of the paper and the comparisons that decide it."""

    statement: str
    reported: str
    """What the paper's own figures say."""
    conditions: tuple[Condition, ...]
    comparisons: tuple[Comparison, ...]

    def runs(self) -> set[str]:
        """Return the runs that decide the claim."""
        sides = (side for comparison in self.comparisons for side in (comparison.left, comparison.right))
        return {side.partition("@")[0] for side in sides}


class LatticeFigure(Record):
    """Whose posteriors the lattice figure shows, for the utterance of median length of a test part."""

    runs: tuple[str, ...]
    condition: Condition = "clean"


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
        figures = {title: tuple(run for run in runs if run in needed) for title, runs in self.figures.items()}
        return self.model_copy(
            update={
                "runs": {name: run for name, run in self.runs.items() if name in needed},
                "tables": kept,
                "claims": {name: claim for name, claim in self.claims.items() if claim.runs() <= needed},
                "figures": {title: runs for title, runs in figures.items() if runs},
                "lattice": self.lattice if self.lattice is not None and needed.issuperset(self.lattice.runs) else None,
            }
        )


def systems(study: Study, language_models: LanguageModels | None) -> dict[str, tuple[Name, str]]:
    """Return everything whose word errors are counted: its name -> run, and file below the run's folder.

    A run decoded in one way is a system of the same name. A CTC run is that for greedy search, and is followed by
    <run>@beam_<size> and, where it has a decoder, <run>@attention.
    """
    found: dict[str, tuple[Name, str]] = {}
    for name, run in study.runs.items():
        found[name] = (name, "hypotheses.jsonl")
        if run.recogniser == "ctc" and language_models is not None:
            searches = [f"beam_{size}" for size in language_models.search.beam_sizes]
            searches += ["attention"] if run.decoder != "none" else []
            found |= {f"{name}@{search}": (name, f"searches/{search}.jsonl") for search in searches}
    return found


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
