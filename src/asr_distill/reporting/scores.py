"""Score the hypotheses of all runs of a study: scores.csv by run, seed and part; errors.csv by utterance."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from asr_distill.experiment import StudyRecord
from asr_distill.files import write_csv
from asr_distill.scoring.significance import WerInterval, mean_wer_interval, wer_interval
from asr_distill.scoring.word_errors import CHARACTER_COLUMNS, read_hypotheses, read_references, word_errors

MEAN = "mean"
"""Stands in scores.csv in the column `seed` of rows that average over the seeds, and in `part` over parts."""
COUNTS = ["words", "speakers", "substitutions", "deletions", "insertions"]


def score(study: Path, *, references: Mapping[str, Path], runs: Path, scores: Path, errors: Path) -> None:
    """Score every run and seed of a study on the parts that it is scored on.

    Args:
        study: the resolved study.yaml.
        references: references.jsonl of each dev and test part, by name of the part.
        runs: folder that holds <run>/seed<seed>/hypotheses.jsonl.
        scores: written; run, seed ("mean" over seeds too), part, column of the paper, words, speakers, substitutions,
            deletions, insertions, wer, low, high. Rates are percent, with their bootstrap interval. For a study with a
            table of means, "mean" stands for a part too: the mean of the rates on `mean_parts`. Where the scale scores
            characters, also characters, cer, cer_low, cer_high.
        errors: written; run, seed, part, id, speaker, words, errors, and the same of characters.

    Raises:
        ValueError: when hypotheses and references do not fit together.
    """
    record = StudyRecord.read(study)
    expected = read_references(references)
    utterances = pd.concat(
        [
            _score_system(record, system, seed, runs=runs, references=expected)
            for system in record.systems()
            for seed in record.seeds
        ],
        ignore_index=True,
    )
    rows = pd.DataFrame(_summaries(record, utterances))
    for path in (scores, errors):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(scores, rows)
    columns = ["run", "seed", "part", "id", "speaker", "words", "errors"]
    columns += CHARACTER_COLUMNS if record.scale.scoring.characters else []
    write_csv(errors, utterances[columns])


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return a random generator of its own for what is named, so that results depend on no order of calls."""
    return np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])


def _score_system(study: StudyRecord, system: str, seed: int, *, runs: Path, references: pd.DataFrame) -> pd.DataFrame:
    run, name = study.systems()[system]
    path = runs / study.run_folder(run, seed) / name
    own = references[references["part"].isin(study.scored(run))]
    try:
        counted = word_errors(own, read_hypotheses(path), characters=study.scale.scoring.characters)
    except FileNotFoundError:
        raise ValueError(f"{path}: is missing; decode the run '{run}' with seed {seed} first") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return counted.assign(run=system, seed=seed)


def _summaries(study: StudyRecord, utterances: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the rows of scores.csv: for every run and part one row per seed, then their mean."""
    columns = {part: column for column, part in study.scale.columns.items()}
    groups = [(*key, group) for key, group in utterances.groupby(["run", "part"], sort=False)]
    if any(table.mean for table in study.study.tables.values()):
        averaged = utterances[utterances["part"].isin(mean_parts(study))]
        groups += [(run, MEAN, group) for run, group in averaged.groupby("run", sort=False)]
    for run, part, group in groups:
        seeds = [(str(seed), rows) for seed, rows in group.groupby("seed", sort=False)]
        for seed, rows in [*seeds, (MEAN, group)]:
            interval = _interval(study, run, part, rows)
            rates = {"wer": interval.wer, "low": interval.low, "high": interval.high}
            passes = len(seeds) if seed == MEAN else 1
            of_characters = _character_figures(study, run, part, rows, seeds=passes)
            yield {
                "run": run,
                "seed": seed,
                "part": part,
                "column": columns.get(part, ""),
                **_counts(rows, seeds=passes),
                **{name: percent(rate) for name, rate in rates.items()},
                **of_characters,
            }


def mean_parts(study: StudyRecord) -> tuple[str, ...]:
    """Return the parts over which the paper's means are taken: those of its usual columns that the scale has."""
    return tuple(part for column, part in study.scale.columns.items() if column in study.printed["columns"])


def _interval(study: StudyRecord, run: str, part: str, rows: pd.DataFrame) -> WerInterval:
    scoring = study.scale.scoring
    resampling = {"replicates": scoring.replicates, "confidence": scoring.confidence}
    rng = generator(scoring.seed, run, part)
    if part == MEAN:
        return mean_wer_interval([own for _, own in rows.groupby("part", sort=False)], rng=rng, **resampling)
    return wer_interval(rows, rng=rng, **resampling)


def _character_figures(study: StudyRecord, run: str, part: str, rows: pd.DataFrame, *, seeds: int) -> dict[str, str]:
    """Return characters and their error rate in percent, with its interval from the speakers drawn for words too."""
    if not study.scale.scoring.characters:
        return {}
    counted = rows.assign(words=rows["characters"], errors=rows["character_errors"])
    interval = _interval(study, run, part, counted)
    rates = {"cer": interval.wer, "cer_low": interval.low, "cer_high": interval.high}
    return {
        "characters": f"{rows['characters'].sum() / seeds:.0f}",
        **{name: percent(rate) for name, rate in rates.items()},
    }


def _counts(rows: pd.DataFrame, *, seeds: int) -> dict[str, str]:
    """Return words, speakers and edits of one pass over the part; edits are averaged over seeds."""
    sums = rows[["words", "substitutions", "deletions", "insertions"]].sum() / seeds
    decimals = 0 if seeds == 1 else 1
    counts = {name: f"{sums[name]:.{decimals}f}" for name in ("substitutions", "deletions", "insertions")}
    return {"words": f"{sums['words']:.0f}", "speakers": str(rows["speaker"].nunique()), **counts}


def percent(rate: float) -> str:
    """Return a fraction as percent with three decimals, "nan" where undefined."""
    return "nan" if math.isnan(rate) else f"{100 * rate + 0.0:.3f}"
