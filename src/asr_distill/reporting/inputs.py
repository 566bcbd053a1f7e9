"""What the reporting jobs read: training summaries, learning curves, scores, word errors, corpus overview."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from asr_distill.experiment import StudyRecord

M = TypeVar("M", bound=BaseModel)


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


class Benchmark(BaseModel):
    """What Snakemake measured of one job; NaN where it could not."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    seconds: float
    megabytes: float
    """Peak resident memory."""


class DecodedPart(BaseModel):
    """What decoding one part with a CTC recogniser took."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    part: str
    audio_seconds: float
    seconds: dict[str, float]
    """Of reading features ("features"), of the encoder with its CTC head ("encoder"), and of each search."""


class Timing(BaseModel):
    """The summary that decoding with a CTC recogniser leaves in decoding.json; keys not named here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    threads: int
    device: str
    batch_seconds: float
    """Largest batch in seconds of speech, padding included."""
    parts: tuple[DecodedPart, ...]


def read_trainings(study: StudyRecord, *, runs: Path) -> dict[tuple[str, int], Training]:
    """Read training.json of every run and seed of a study, by (run, seed).

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    return {
        (run, seed): _read_json(runs / study.run_folder(run, seed) / "training.json", Training, again="train the run")
        for run, seed in run_seeds(study)
    }


def read_benchmark(path: Path) -> Benchmark:
    """Read one of Snakemake's benchmark files: the last row; NaN for what is missing or was not measured."""
    if not path.is_file():
        return Benchmark(seconds=math.nan, megabytes=math.nan)
    rows = pd.read_csv(path, sep="\t", na_values=["-", "NA", ""])
    if rows.empty or not {"s", "max_rss"} <= set(rows):
        raise ValueError(f"{path}: is no benchmark file of Snakemake: it lacks the columns s and max_rss; delete it")
    last = rows.iloc[-1]
    return Benchmark(seconds=float(last["s"]), megabytes=float(last["max_rss"]))


def read_timings(study: StudyRecord, *, runs: Path) -> dict[tuple[str, int], Timing]:
    """Read decoding.json of every CTC run and seed of a study, by (run, seed).

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    return {
        (run, seed): _read_json(runs / study.run_folder(run, seed) / "decoding.json", Timing, again="decode the run")
        for run, seed in run_seeds(study)
        if run in study.ctc_runs
    }


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
    return read_texts(path)


def read_texts(path: Path) -> pd.DataFrame:
    """Read a CSV file whose cells are all text."""
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


def read_arrays(path: Path, wanted: Iterable[str], *, again: str) -> dict[str, NDArray]:
    """Read an npz file that holds at least the arrays `wanted`; `again` says how to make it anew.

    Raises:
        ValueError: naming the file and what it lacks.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not readable as npz ({error}); {again}") from None
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; {again}")
    return arrays


def read_knowledge(path: Path, part: Literal["samples", "figure"], names: Iterable[str]) -> dict[str, NDArray]:
    """Read the arrays of one part of knowledge.npz, named without it.

    Raises:
        ValueError: naming the file and what it lacks.
    """
    wanted = {f"{part}/{name}": name for name in names}
    arrays = read_arrays(path, wanted, again="write the knowledge of this study again")
    return {name: arrays[key] for key, name in wanted.items()}


def run_seeds(study: StudyRecord) -> list[tuple[str, int]]:
    """Return every run of a study with every seed, in the order of the config."""
    return [(run, seed) for run in study.study.runs for seed in study.seeds]


def _read_json(path: Path, record: type[M], *, again: str) -> M:
    try:
        return record.model_validate(json.loads(_text(path)))
    except (ValidationError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; {again} again") from None


def _text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path}: is missing; run the stage that writes it first")
    return path.read_text(encoding="utf-8")
