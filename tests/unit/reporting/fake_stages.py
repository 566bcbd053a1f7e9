"""The reporting stages, run on the invented study as the workflow runs them."""

from __future__ import annotations

from pathlib import Path

from fake_study import FakeStudy

from asr_distill.reporting.claims import write_claims
from asr_distill.reporting.figures import write_figures
from asr_distill.reporting.latency import write_latency
from asr_distill.reporting.provenance import write_provenance
from asr_distill.reporting.report import write_report
from asr_distill.reporting.scores import score
from asr_distill.reporting.tables import write_corpus_table, write_tables
from asr_distill.reporting.times import write_times
from asr_distill.reporting.verdicts import write_verdicts
from asr_distill.reporting.weak_teachers import write_gains


def score_fake(fake: FakeStudy) -> None:
    """Write scores.csv and errors.csv."""
    results = fake.results
    score(
        fake.study,
        references=fake.references,
        runs=fake.runs,
        scores=results / "scores.csv",
        errors=results / "errors.csv",
    )


def latency_of(fake: FakeStudy) -> Path | None:
    """Return latency.csv, for a study that measures it."""
    return fake.results / "latency.csv" if fake.record.study.measures_latency else None


def report_fake(fake: FakeStudy) -> None:
    """Run every reporting stage."""
    results, work, latency = fake.results, fake.scale_work, latency_of(fake)
    score_fake(fake)
    if latency is not None:
        write_latency(fake.study, references=fake.references, runs=fake.runs, output=latency)
    scores, errors, tables = results / "scores.csv", results / "errors.csv", results / "tables"
    write_tables(fake.study, scores=scores, runs=fake.runs, latency=latency, output=tables)
    write_verdicts(fake.study, errors=errors, output=tables)
    write_gains(fake.study, errors=errors, output=tables)
    write_corpus_table(fake.study, overview=fake.overview, output=results / "tables")
    write_claims(fake.study, errors=results / "errors.csv", runs=fake.runs, output=results)
    write_figures(
        fake.study,
        scores=results / "scores.csv",
        runs=fake.runs,
        illustrations=fake.illustrations if fake.record.study.lattice is not None else None,
        latency=latency,
        errors=errors,
        output=results / "figures",
    )
    write_times(
        fake.study,
        references=fake.references,
        runs=fake.runs,
        scores=results / "scores.csv",
        output=results / "times",
    )
    write_provenance(
        fake.study,
        records=[work / "corpus.yaml", work / "tokenizer.yaml"],
        runs=fake.runs,
        work=work,
        root=fake.root,
        output=results / "provenance.json",
    )
    report_only(fake)


def report_only(fake: FakeStudy, *, listening: Path | None = None) -> None:
    """Write the report from what the other stages wrote."""
    results = fake.results
    write_report(
        fake.study,
        scores=results / "scores.csv",
        claims=results / "claims.csv",
        runs=fake.runs,
        overview=fake.overview,
        tables=results / "tables",
        figures=results / "figures",
        times=results / "times",
        provenance=results / "provenance.json",
        output=results / "report.html",
        latency=latency_of(fake),
        listening=listening,
    )
