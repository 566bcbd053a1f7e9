"""The paper's tables, as printed beside ours, and the table of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from asr_distill.experiment import GREEDY, Row, StudyRecord, Table, columns_of, printed_row
from asr_distill.files import write_csv
from asr_distill.reporting.characters import character_cells, character_columns, character_notes, shown_characters
from asr_distill.reporting.costs import COST_NOTE, cost_cells, cost_columns, read_costs, shown_costs
from asr_distill.reporting.grid import Column, Grid, count, plural, significant, with_interval, write_grid
from asr_distill.reporting.inputs import Benchmark, Training, read_overview, read_scores, read_trainings
from asr_distill.reporting.latency import latency_cells, latency_columns, latency_notes, read_latency, shown_latency
from asr_distill.reporting.real_time import printed_rtf, real_time_frame
from asr_distill.reporting.scores import MEAN, mean_parts
from asr_distill.scoring.significance import FEW_SPEAKERS, ONE_SPEAKER


def write_tables(study: Path, *, scores: Path, runs: Path, output: Path, latency: Path | None = None) -> None:
    """Write every table of a study as <output>/<table>.csv, .md and .tex.

    Args:
        study: the resolved study.yaml.
        scores: scores.csv.
        runs: folder that holds <run>/seed<seed>/training.json, of CTC runs decoding.json and, where a table shows what
            training costs, train.tsv.
        output: folder of the tables.
        latency: latency.csv, for a study with a table that shows it.
    """
    record, scored = StudyRecord.read(study), read_scores(scores)
    measured = read_measured(record, runs=runs, latency=latency)
    for name, table in record.study.tables.items():
        frame = table_frame(record, table, scores=scored, **measured)
        grid = table_grid(record, name, frame=frame, scores=scored, latencies=measured["latencies"])
        write_grid(grid, folder=output)
        write_csv(output / f"{name}.csv", frame)


def read_measured(study: StudyRecord, *, runs: Path, latency: Path | None) -> dict[str, Any]:
    """Return what tables show beside word error rates, as `table_frame` takes it."""
    return {
        "trainings": read_trainings(study, runs=runs),
        "speeds": real_time_frame(study, runs=runs),
        "costs": read_costs(study, runs=runs),
        "latencies": read_latency(latency),
    }


def write_corpus_table(study: Path, *, overview: Path, output: Path) -> None:
    """Write the parts of the corpus as <output>/corpus.csv, .md and .tex, from the overview that preparing it wrote."""
    grid = corpus_grid(StudyRecord.read(study), read_overview(overview))
    write_grid(grid, folder=output)
    frame = read_overview(overview).assign(hours=lambda frame: frame["hours"].map("{:.4f}".format))
    write_csv(output / "corpus.csv", frame)


def table_frame(
    study: StudyRecord,
    table: Table,
    *,
    scores: pd.DataFrame,
    trainings: dict[tuple[str, int], Training],
    speeds: pd.DataFrame,
    costs: dict[tuple[str, int], Benchmark],
    latencies: pd.DataFrame,
) -> pd.DataFrame:
    """Return one table for machines: a row per row of the paper, all cells text, word error rates in percent.

    Args:
        study: the study.
        table: one of its tables.
        scores: as `read_scores` returns them.
        trainings: as `read_trainings` returns them.
        speeds: as `real_time_frame` returns them; a table of CTC recognisers alone shows real-time factors too.
        costs: as `read_costs` returns them, for tables of costs.
        latencies: as `read_latency` returns them, for tables of latency.
    """
    runs = {study.systems()[row.run][0] for row in table.rows if row.run is not None}
    timed = bool(runs) and runs.issubset(study.ctc_runs)
    rows = []
    for row in table.rows:
        cells = {"group": row.group} if any(row.group for row in table.rows) else {}
        cells |= _cells(study, table, row, scores=scores)
        cells |= character_cells(study, row, _shown_parts(study, table), scores=scores)
        cells |= latency_cells(study, row, latencies=latencies) if table.latency else {}
        cells |= _speed_cells(study, row, speeds=speeds) if timed else {}
        cells |= cost_cells(study, row, trainings=trainings, costs=costs) if table.cost else {}
        rows.append(cells | _training_cells(study, row, trainings=trainings))
    return pd.DataFrame(rows)


def table_grid(
    study: StudyRecord, name: str, *, frame: pd.DataFrame, scores: pd.DataFrame, latencies: pd.DataFrame
) -> Grid:
    """Return one table for people, from its `table_frame`."""
    table = study.study.tables[name]
    shown = _shown_parts(study, table)
    columns = [Column(label="student", align="left") for _ in range("group" in frame)]
    columns.append(Column(label="", align="left"))
    for heading, column in shown:
        if column:
            columns.append(Column(label="paper", group=heading))
        columns.append(Column(label="ours", group=heading))
    columns += character_columns(study, shown)
    columns += latency_columns(study) if table.latency else []
    timed = "rtf" in frame
    columns += [Column(label=label, group="RTF") for label in ("paper", "ours") if timed]
    columns += cost_columns() if table.cost else []
    columns += [Column(label=label) for label in ("hours", "parameters", "steps", "batch", "seeds")]
    rows = tuple(tuple(_shown_cells(study, table, row, shown)) for row in frame.to_dict("records"))
    notes = _notes(study, table, scores, timed=timed)
    return Grid(
        name=name,
        title=table.caption,
        caption=_caption(study, table, scores),
        columns=tuple(columns),
        rows=rows,
        notes=(*notes, *(latency_notes(study, table, latencies=latencies) if table.latency else ())),
        deviations=(*study.scale.deviations, *study.study.deviations, *table.deviations),
    )


def corpus_grid(study: StudyRecord, overview: pd.DataFrame) -> Grid:
    """Return the corpus for people."""
    counted = ("utterances", "speakers", "words", "quarantined")
    rows = tuple(
        (row["part"], row["use"], f"{row['hours']:.2f}", *(count(row[name]) for name in counted))
        for row in overview.to_dict("records")
    )
    left, right = (
        [Column(label=n, align="left") for n in ("part", "use")],
        [Column(label=n) for n in ("hours", *counted)],
    )
    return Grid(
        name="corpus",
        title="Parts of the corpus",
        caption=f"Scale “{study.scale_name}”. Quarantined utterances were left out and count nowhere else.",
        columns=(*left, *right),
        rows=rows,
    )


def _shown_parts(study: StudyRecord, table: Table) -> list[tuple[str, str]]:
    """Return (part, column of the paper) of every part a table shows: the paper's columns, then other test parts.

    In a table of means these come first, and the paper prints nothing of the single parts.
    """
    if table.mean:
        return [(MEAN, MEAN), *((part, "") for part in mean_parts(study))]
    columns = study.scale.columns
    own = [(part, column) for column, part in columns.items() if column in columns_of(study.printed, table)]
    scored = {part for row in table.rows if row.run for part in study.scored(study.systems()[row.run][0])}
    tests = [part for part in study.scored_parts if part in scored and study.scale.corpus.parts[part].use == "test"]
    return own + [(part, "") for part in tests if part not in columns.values()]


def _cells(study: StudyRecord, table: Table, row: Row, *, scores: pd.DataFrame) -> dict[str, str]:
    """Return word error rates of one row for machines; "" where the paper or we have no figure."""
    means = scores[(scores["run"] == row.run) & (scores["seed"] == MEAN)].set_index("part")
    printed = {} if row.printed is None else printed_row(study.printed, table, row.printed)
    cells = {"row": row.label, "run": row.run or "", "printed_row": row.printed or ""}
    for part, column in _shown_parts(study, table):
        name = column or part
        if column:
            cells[f"{name}_printed"] = _printed(printed.get(column))
        for figure in ("wer", "low", "high"):
            cells[f"{name}_{figure}"] = f"{means.loc[part, figure]:.3f}" if part in means.index else ""
    return cells


def _speed_cells(study: StudyRecord, row: Row, *, speeds: pd.DataFrame) -> dict[str, str]:
    """Return real-time factors of one row, from features to text, means over seeds."""
    cells = {"rtf_printed": "", "rtf": ""}
    if row.printed is not None:
        cells["rtf_printed"] = printed_rtf(study.printed, row.printed.partition("@")[2] or GREEDY)
    if row.run is not None:
        run, _, search = row.run.partition("@")
        own = speeds[(speeds["run"] == run) & (speeds["search"] == (search or GREEDY))]
        cells["rtf"] = significant(own["end_to_end"].mean(), digits=4)
    return cells


def _training_cells(study: StudyRecord, row: Row, *, trainings: dict[tuple[str, int], Training]) -> dict[str, str]:
    """Return what the run of one row took to train."""
    cells = {}
    mine = [trainings[study.systems()[row.run][0], seed] for seed in study.seeds] if row.run else []
    cells["hours"] = _same(f"{training.hours:.2f}" for training in mine)
    cells["parameters"] = _same(str(training.parameters) for training in mine)
    cells["steps"] = _same(str(training.steps) for training in mine)
    cells["effective_batch"] = _same(f"{training.effective_batch:.1f}" for training in mine)
    cells["seeds"] = str(len(mine)) if mine else ""
    return cells


def _shown_cells(study: StudyRecord, table: Table, row: dict[str, str], shown: list[tuple[str, str]]) -> Iterator[str]:
    if "group" in row:
        yield row["group"]
    yield row["row"]
    for part, column in shown:
        if column:
            yield row[f"{column}_printed"]
        wer, low, high = (row[f"{column or part}_{figure}"] for figure in ("wer", "low", "high"))
        yield with_interval(wer, low, high)
    yield from shown_characters(study, row, shown)
    if table.latency:
        yield from shown_latency(study, row)
    if "rtf" in row:
        yield row["rtf_printed"]
        yield significant(float(row["rtf"] or "nan"))
    if table.cost:
        yield from shown_costs(row)
    yield row["hours"]
    yield magnitude(row["parameters"])
    yield from (row[name] for name in ("steps", "effective_batch", "seeds"))


def magnitude(parameters: str) -> str:
    """Return a number of parameters as people say it: 612 k, 1.23 M."""
    if not parameters.isdigit():
        return parameters
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if int(parameters) >= size:
            return f"{int(parameters) / size:.3g}\u00a0{unit}"
    return parameters


def _printed(wer: float | None) -> str:
    return "" if wer is None else (f"{wer:.1f}" if round(wer, 1) == wer else f"{wer:g}")


def _same(values: Iterator[str]) -> str:
    """Return what all seeds have in common, or the range of what they have."""
    distinct = sorted(set(values), key=float)
    return f"{distinct[0]}–{distinct[-1]}" if len(distinct) > 1 else "".join(distinct)


def _caption(study: StudyRecord, table: Table, scores: pd.DataFrame) -> str:
    sizes = scores.drop_duplicates("part").set_index("part")
    words = [
        f"{part} {plural(sizes.loc[part, 'words'], 'word')} by {plural(sizes.loc[part, 'speakers'], 'speaker')}"
        for part, _ in _shown_parts(study, table)
        if part in sizes.index and part != MEAN
    ]
    return (
        f"Word error rate in percent, no external language model{_fusion(study)}. Paper: as printed in arXiv "
        f"{study.printed['arxiv']}. Ours: scale “{study.scale_name}”; {'; '.join(words)}."
    )


def _fusion(study: StudyRecord) -> str:
    """Return which rows are decoded with a language model after all."""
    fused = any("@beam" in system for system in study.systems())
    return " but the n-gram of beam search" if fused else ""


def _notes(study: StudyRecord, table: Table, scores: pd.DataFrame, *, timed: bool) -> tuple[str, ...]:
    confidence = f"{100 * study.scale.scoring.confidence:g} %"
    several = len(study.seeds) > 1
    what = "the mean over seeds and, in brackets, its" if several else "one training seed and, in brackets, the"
    scope = "speakers and seeds" if several else "test speakers; it does not cover other training seeds"
    notes = [f"Ours: {what} {confidence} bootstrap interval over {scope}."]
    speakers = scores[scores["part"].isin([part for part, _ in _shown_parts(study, table)])]["speakers"].astype(int)
    if speakers.min() == 1:
        notes.append(f"n/a: {ONE_SPEAKER}.")
    elif speakers.min() < FEW_SPEAKERS:
        notes.append(f"A part with fewer than {FEW_SPEAKERS} speakers has an interval that is somewhat too short.")
    notes.append("Paper and ours differ in corpus and size at most scales: compare the order of rows, not the figures.")
    if table.mean:
        notes.append(
            f"Mean: of the word error rates on {', '.join(mean_parts(study))}. Its interval draws the speakers of each "
            "part by themselves."
        )
    notes += character_notes(study)
    if table.cost:
        notes.append(COST_NOTE)
    if timed:
        notes.append(
            "RTF: seconds of computing by second of speech, ours from features to text on all test parts. Ours are "
            "measurements, which vary from run to run; the table of real-time factors says how they were made."
        )
    return (*notes, *([table.note] if table.note else []))
