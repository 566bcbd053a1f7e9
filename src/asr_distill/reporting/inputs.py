"""What the reporting jobs read: training summaries, learning curves, scores, word errors, corpus overview."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from asr_distill.experiment import StudyRecord


class Training(BaseModel):
    """The summary that a training run leaves in training.json; keys not named here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    run: str
    seed: int
    parameters: int
    """Of the exported model."""
    steps: int
    effective_batch: float
    """Utterances per step."""
    hours: float
    """Speech trained on, originals only."""
    seconds: float
    """Wall time of the training loop."""
    device: str


def read_trainings(study: StudyRecord, *, runs: Path) -> dict[tuple[str, int], Training]:
    """Read training.json of every run and seed of a study, by (run, seed).

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    trainings = {}
    for run, seed in run_seeds(study):
        path = runs / study.run_folder(run, seed) / "training.json"
        try:
            trainings[run, seed] = Training.model_validate(json.loads(_text(path)))
        except (ValidationError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}; train the run again") from None
    return trainings


def read_curves(study: StudyRecord, *, runs: Path) -> dict[tuple[str, int], pd.DataFrame]:
    """Read curve.csv of every run and seed: columns step, seconds, loss, learning_rate and wer/<part> (a fraction)."""
    curves = {}
    for run, seed in run_seeds(study):
        path = runs / study.run_folder(run, seed) / "curve.csv"
        _text(path)
        curves[run, seed] = pd.read_csv(path)
        for column in ("step", "loss"):
            if column not in curves[run, seed]:
                raise ValueError(f"{path}: has no column '{column}'; train the run again")
    return curves


def read_scores(path: Path) -> pd.DataFrame:
    """Read scores.csv: word error rates in percent; `seed` is text, "mean" for the mean over seeds."""
    return pd.read_csv(path, dtype={"run": str, "seed": str, "part": str, "column": str}, keep_default_na=False).astype(
        {"low": float, "high": float}
    )


def read_errors(path: Path) -> pd.DataFrame:
    """Read errors.csv: run, seed, part, id, speaker, words, errors, one row per utterance."""
    return pd.read_csv(path, dtype={"run": str, "part": str, "id": str, "speaker": str}, keep_default_na=False)


def read_claims(path: Path) -> pd.DataFrame:
    """Read claims.csv; all cells are text."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def read_overview(path: Path) -> pd.DataFrame:
    """Read the corpus overview: part, use, utterances, hours, speakers, words, quarantined."""
    _text(path)
    overview = pd.read_csv(path, dtype={"part": str, "use": str})
    missing = [
        c for c in ("part", "use", "utterances", "hours", "speakers", "words", "quarantined") if c not in overview
    ]
    if missing:
        raise ValueError(f"{path}: lacks the columns {', '.join(missing)}; prepare the corpus again")
    return overview


def run_seeds(study: StudyRecord) -> list[tuple[str, int]]:
    """Return every run of a study with every seed, in the order of the config."""
    return [(run, seed) for run in study.study.runs for seed in study.seeds]


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: is missing; run the stage that writes it first")
    return path.read_text(encoding="utf-8")
