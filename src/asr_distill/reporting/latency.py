"""How late streaming runs write their words: measured into latency.csv, and read from it for tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from asr_distill.experiment import Row, StudyRecord, Table
from asr_distill.files import write_csv
from asr_distill.reporting.grid import Column
from asr_distill.reporting.scores import generator, percent
from asr_distill.scoring.latency import PERCENTILE, LatencySummary, latency_summary, read_word_times, word_latencies
from asr_distill.scoring.word_errors import read_references

MEASURES = {"latency": "mean", "latency_90": f"{PERCENTILE} %"}
"""Measure -> heading in tables. Each is followed by its interval: <measure>_low and <measure>_high."""
FIGURES = [f"{measure}{bound}" for measure in MEASURES for bound in ("", "_low", "_high")]
COLUMNS = ["run", "part", "seeds", "words", "coverage", "speakers", *FIGURES, "reason"]


def write_latency(study: Path, *, references: Mapping[str, Path], runs: Path, output: Path) -> None:
    """Write how late each timed run of a study writes the words of each test part, over all its seeds.

    Args:
        study: the resolved study.yaml.
        references: references.jsonl of each part, by name of the part; those of test parts are read.
        runs: folder that holds <run>/seed<seed>/emissions.jsonl and, of the run that aligns, alignment.jsonl.
        output: latency.csv; run, part, seeds, words that are right and so are timed (of all seeds), coverage (their
            share in percent), speakers, mean latency and its 90th percentile in milliseconds, each with its interval,
            and the reason where there is none.

    Raises:
        ValueError: naming the file that is missing or does not fit.
    """
    record = StudyRecord.read(study)
    expected = read_references({part: references[part] for part in record.scale.parts("test")})
    ends = {seed: _read_times(record, record.study.aligned_by, seed, "alignment.jsonl", runs) for seed in record.seeds}
    rows = []
    for run in record.timed_runs:
        timed = [_latencies(record, run, seed, references=expected, ends=ends[seed], runs=runs) for seed in ends]
        for part, own in pd.concat(timed).groupby("part", sort=False):
            rows.append({"run": run, "part": part, "seeds": len(record.seeds), **_summary(record, run, part, own)})
    output.parent.mkdir(parents=True, exist_ok=True)
    write_csv(output, pd.DataFrame(rows, columns=COLUMNS))


def read_latency(path: Path | None) -> pd.DataFrame:
    """Read latency.csv, as `write_latency` writes it; nothing is read where no latency is measured."""
    if path is None:
        return pd.DataFrame(columns=COLUMNS)
    found = pd.read_csv(path, dtype={"run": str, "part": str, "reason": str}, keep_default_na=False)
    return found.astype(dict.fromkeys(FIGURES, float))


def latency_cells(study: StudyRecord, row: Row, *, latencies: pd.DataFrame) -> dict[str, str]:
    """Return the latency of a table's row for machines, keys <part>_<figure>; "" where it has none."""
    cells = {}
    for part in study.scale.parts("test"):
        own = latencies[(latencies["run"] == row.run) & (latencies["part"] == part)]
        cells |= {f"{part}_{figure}": f"{own.iloc[0][figure]:.1f}" if len(own) else "" for figure in FIGURES}
    return cells


def latency_columns(study: StudyRecord) -> list[Column]:
    """Return the columns of latency in a table for people."""
    parts = study.scale.parts("test")
    return [Column(label=label, group=f"latency on {part}, ms") for part in parts for label in MEASURES.values()]


def shown_latency(study: StudyRecord, cells: Mapping[str, str]) -> Iterator[str]:
    """Yield the latency of a row for machines as people read it, in the order of `latency_columns`."""
    for part in study.scale.parts("test"):
        for measure in MEASURES:
            yield milliseconds(*(cells[f"{part}_{measure}{bound}"] for bound in ("", "_low", "_high")))


def milliseconds(value: str, low: str, high: str) -> str:
    """Return "183 [170, 197]" for milliseconds given as text."""
    if not value:
        return ""
    if value == "nan":
        return "n/a"
    return f"{_whole(value)} [{'n/a' if low == 'nan' else f'{_whole(low)}, {_whole(high)}'}]"


def latency_notes(study: StudyRecord, table: Table, *, latencies: pd.DataFrame) -> list[str]:
    """Return how to read the latencies of a table."""
    own = latencies[latencies["run"].isin([row.run for row in table.rows])]
    if own.empty:
        return ["Latency: no run here tells when it writes a word; streaming ones that are decoded greedily do."]
    coverage = [f"{share:.0f}" for share in (own["coverage"].min(), own["coverage"].max())]
    notes = [
        "Latency: when a word's last token was written, minus when the word ends in the speech by the forced alignment "
        f"of the run “{study.study.aligned_by}”, in milliseconds: the mean over words, and what {PERCENTILE} % of them "
        "do not exceed, each with its interval. It counts frames of speech waited for, not time to compute. Only words "
        f"that are right are timed, {' to '.join(dict.fromkeys(coverage))} % of them.",
        "Bi-directional students hear the whole utterance before they write a word, so they show no latency.",
    ]
    return notes + [f"n/a: {reason}." for reason in own["reason"].unique() if reason]


def _latencies(
    study: StudyRecord, run: str, seed: int, *, references: pd.DataFrame, ends: pd.DataFrame, runs: Path
) -> pd.DataFrame:
    """Return `word_latencies` of one run and seed on the parts that have references."""
    emissions = _read_times(study, run, seed, "emissions.jsonl", runs)
    try:
        found = word_latencies(references, ends, emissions[emissions["part"].isin(references["part"])])
    except ValueError as error:
        raise ValueError(f"{runs / study.run_folder(run, seed) / 'emissions.jsonl'}: {error}") from None
    return found.assign(seed=seed)


def _summary(study: StudyRecord, run: str, part: str, latencies: pd.DataFrame) -> dict[str, str]:
    """Return the cells of one row of latency.csv, of `word_latencies` of all seeds."""
    scoring = study.scale.scoring
    found: LatencySummary = latency_summary(
        latencies,
        rng=generator(scoring.seed, "latency", run, part),
        replicates=scoring.replicates,
        confidence=scoring.confidence,
    )
    cells = {"words": str(found.words), "coverage": percent(found.coverage), "speakers": str(found.speakers)}
    for measure, estimate in zip(MEASURES, (found.mean, found.percentile_90), strict=True):
        values = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        cells |= {f"{measure}{bound}": _milliseconds(value) for bound, value in values.items()}
    return cells | {"reason": found.reason}


def _read_times(study: StudyRecord, run: str, seed: int, name: str, runs: Path) -> pd.DataFrame:
    path = runs / study.run_folder(run, seed) / name
    if not path.is_file():
        raise ValueError(f"{path}: is missing; decode streaming runs and align the references first")
    return read_word_times(path)


def _milliseconds(seconds: float) -> str:
    return "nan" if math.isnan(seconds) else f"{1000 * seconds + 0.0:.1f}"


def _whole(milliseconds: str) -> str:
    return str(round(float(milliseconds))).replace("-", "−")
