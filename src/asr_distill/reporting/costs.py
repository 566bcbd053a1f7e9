"""What training costs, for tables that show it: peak memory of the job and time per step, as measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from asr_distill.experiment import Row, StudyRecord
from asr_distill.reporting.grid import Column, significant
from asr_distill.reporting.inputs import Benchmark, Training, read_benchmark, run_seeds

COST_NOTE = (
    "Memory: peak resident memory of the training job, start-up included. Time: of the training loop, by step. Ours "
    "are measurements of this very run: they depend on machine and load and vary from run to run."
)


def read_costs(study: StudyRecord, *, runs: Path) -> dict[tuple[str, int], Benchmark]:
    """Read what Snakemake measured of the training of every run and seed; nothing if no table shows it."""
    if not any(table.cost for table in study.study.tables.values()):
        return {}
    return {key: read_benchmark(runs / study.run_folder(*key) / "train.tsv") for key in run_seeds(study)}


def cost_columns() -> list[Column]:
    """Return the headings, for people."""
    memory = [Column(label=label, group="memory of training") for label in ("paper", "ours")]
    return [*memory, Column(label="ms per step")]


def cost_cells(
    study: StudyRecord,
    row: Row,
    *,
    trainings: Mapping[tuple[str, int], Training],
    costs: Mapping[tuple[str, int], Benchmark],
) -> dict[str, str]:
    """Return megabytes and milliseconds of one row, means over seeds; "" where we or the paper have no figure."""
    cells = {"memory_printed": row.printed_memory, "memory_megabytes": "", "step_milliseconds": ""}
    if row.run is not None:
        keys = [(study.systems()[row.run][0], seed) for seed in study.seeds]
        memory = np.mean([costs[key].megabytes for key in keys])
        step = np.mean([1000 * trainings[key].seconds / trainings[key].steps for key in keys])
        cells |= {"memory_megabytes": significant(memory, digits=4), "step_milliseconds": significant(step, digits=4)}
    return cells


def shown_costs(row: Mapping[str, str]) -> Iterator[str]:
    """Yield the cells of one row for people, from its `cost_cells`."""
    yield row["memory_printed"]
    yield megabytes(row["memory_megabytes"])
    yield significant(float(row["step_milliseconds"] or "nan"), digits=3)


def megabytes(number: str) -> str:
    """Return a number of megabytes as people say it: 812 MB, 13.7 GB."""
    if not number:
        return ""
    size = float(number)
    return f"{significant(size / 1000, digits=3)}\u00a0GB" if size >= 1000 else f"{size:.0f}\u00a0MB"
