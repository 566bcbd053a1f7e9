"""One self-contained HTML page for a study: claims, tables, figures, corpus, deviations, provenance."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from asr_distill.experiment import StudyRecord
from asr_distill.files import write_text
from asr_distill.reporting.captions import TITLES, captions, times_captions
from asr_distill.reporting.claims import claim_grids
from asr_distill.reporting.decisions import headline
from asr_distill.reporting.grid import NOTHING, Grid, duration
from asr_distill.reporting.inputs import read_claims, read_overview, read_scores, read_texts
from asr_distill.reporting.language_models import language_models_grid
from asr_distill.reporting.listening import read_examples, rule
from asr_distill.reporting.provenance import read_provenance
from asr_distill.reporting.real_time import real_time_grid
from asr_distill.reporting.samples import samples_grid
from asr_distill.reporting.tables import corpus_grid, plural, read_measured, table_frame, table_grid
from asr_distill.reporting.times import times_grid
from asr_distill.reporting.verdicts import verdict_grids, verdicts_path
from asr_distill.reporting.weak_teachers import gains_grid, gains_path

MARKS = {"reproduced": "✓", "not reproduced": "✗", "inconclusive": "?", "not run": "–"}
"""Beside the words and the colour of a verdict."""
TEMPLATE = "report.html.j2"


def write_report(
    study: Path,
    *,
    scores: Path,
    claims: Path,
    runs: Path,
    overview: Path,
    tables: Path,
    figures: Path,
    times: Path,
    provenance: Path,
    output: Path,
    knowledge: Path | None = None,
    references: Mapping[str, Path] | None = None,
    language_models: Path | None = None,
    latency: Path | None = None,
    listening: Path | None = None,
) -> None:
    """Write the report; it needs no other file and asks for nothing over the network.

    Args:
        study: the resolved study.yaml.
        scores: scores.csv.
        claims: claims.csv.
        runs: folder that holds <run>/seed<seed>/training.json.
        overview: the corpus overview.
        tables: folder of the tables; those of paired comparisons are read.
        figures: folder of the figures that `write_figures` drew.
        times: folder of times.csv, speed_and_memory.svg and, for CTC runs, real_time_factors.csv, wer_against_rtf.svg.
        provenance: provenance.json.
        output: the HTML file.
        knowledge: knowledge.npz, for a study that has decoded samples, which are then shown.
        references: references.jsonl of each scored part, by name of the part, for these samples.
        language_models: folder of the language models, for a study whose runs use them.
        latency: latency.csv, for a study with a table that shows it.
        listening: listening.json, for a study that lets one listen to utterances.
    """
    record, scored, decided = StudyRecord.read(study), read_scores(scores), read_claims(claims)
    page = _template().render(
        record=record,
        verdicts=headline(decided),
        claim_grids=claim_grids(record, decided),
        tables=list(_tables(record, scores=scored, runs=runs, latency=latency, folder=tables)),
        samples=knowledge and samples_grid(record, references=references, runs=runs, knowledge=knowledge),
        examples=read_examples(listening) if listening else [],
        listening_rule=rule(record) if listening else "",
        figures=[_figure(name, text, folder=figures) for name, text in captions(record).items()],
        corpus=corpus_grid(record, read_overview(overview)),
        language_models=language_models and language_models_grid(record, folder=language_models),
        times=list(_times(record, folder=times)),
        deviations=record.deviations,
        provenance=read_provenance(provenance),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, page.lstrip())


def _tables(
    study: StudyRecord, *, scores: pd.DataFrame, runs: Path, latency: Path | None, folder: Path
) -> Iterator[Grid]:
    """Yield every table, and behind it what comparisons of its runs say."""
    measured = read_measured(study, runs=runs, latency=latency)
    for name, table in study.study.tables.items():
        frame = table_frame(study, table, scores=scores, **measured)
        yield table_grid(study, name, frame=frame, scores=scores, latencies=measured["latencies"])
        if table.verdicts is not None:
            yield from verdict_grids(study, name, read_texts(verdicts_path(folder, name)))
    if study.study.weak_teachers is not None:
        yield gains_grid(study, read_texts(gains_path(folder)))


def _times(study: StudyRecord, *, folder: Path) -> Iterator[tuple[dict[str, Any], Grid]]:
    """Yield what varies from run to run, a figure and a table at a time."""
    grids = [times_grid(study, pd.read_csv(folder / "times.csv"))]
    if study.ctc_runs:
        grids.append(real_time_grid(study, pd.read_csv(folder / "real_time_factors.csv")))
    for (name, caption), grid in zip(times_captions(study).items(), grids, strict=True):
        yield _figure(name, caption, folder=folder), grid


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(marks=MARKS, nothing=NOTHING, plural=plural)
    environment.filters["duration"] = duration
    return environment.get_template(TEMPLATE)


def _figure(name: str, caption: str, *, folder: Path) -> dict[str, Any]:
    """Return a figure for the page, its drawing as a data URI."""
    path = folder / f"{name}.svg"
    if not path.is_file():
        raise ValueError(f"{path}: is missing; draw the figures before writing the report")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"name": name, "title": TITLES[name], "caption": caption, "source": f"data:image/svg+xml;base64,{data}"}
