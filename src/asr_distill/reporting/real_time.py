"""Real-time factors of the searches of CTC recognisers, of the search alone and from features to text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from asr_distill.experiment import ATTENTION, GREEDY, SpeedComparison, StudyRecord, searches
from asr_distill.reporting.grid import Column, Grid, plural, run_name, significant
from asr_distill.reporting.inputs import Timing, read_timings
from asr_distill.scoring.ratios import RatioInterval, ratio_interval


def real_time_frame(study: StudyRecord, *, runs: Path) -> pd.DataFrame:
    """Return the real-time factors of every CTC run, seed and search, all test parts together.

    Args:
        study: the study.
        runs: folder that holds <run>/seed<seed>/decoding.json.

    Returns:
        Columns run, seed, search, audio_seconds, threads, device, batch_seconds; alone, the seconds of the search, and
        end_to_end, those of reading features, encoder and search, by second of speech; and alone_slower and
        end_to_end_slower, how many times those of greedy search of the same run and seed.

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    rows = []
    for (run, seed), timing in read_timings(study, runs=runs).items():
        where = runs / study.run_folder(run, seed) / "decoding.json"
        wanted = searches(study.study.runs[run], study.scale)
        audio, spent = _pooled(timing, study.scale.parts("test"), wanted=wanted, where=where)
        before = spent["features"] + spent["encoder"]
        for search in wanted:
            row = {"run": run, "seed": seed, "search": search, "audio_seconds": audio, "threads": timing.threads}
            row |= {"device": timing.device, "batch_seconds": timing.batch_seconds}
            row |= {"alone": spent[search] / audio, "end_to_end": (before + spent[search]) / audio}
            row["alone_slower"] = spent[search] / spent[GREEDY]
            row["end_to_end_slower"] = (before + spent[search]) / (before + spent[GREEDY])
            rows.append(row)
    return pd.DataFrame(rows)


def search_ratio(frame: pd.DataFrame, comparison: SpeedComparison, *, measure: str, confidence: float) -> RatioInterval:
    """Return how many times as long the slow search takes as the fast one, over the runs that have both.

    Args:
        frame: as `real_time_frame` returns it.
        comparison: the two searches.
        measure: alone or end_to_end.
        confidence: coverage of the interval.
    """
    factors = frame.pivot(index=["run", "seed"], columns="search", values=measure)
    both = factors.reindex(columns=[comparison.slow, comparison.fast]).dropna()
    ratios = both[comparison.slow] / both[comparison.fast]
    return ratio_interval(list(ratios), runs=len(both.index.unique("run")), confidence=confidence)


def real_time_grid(study: StudyRecord, frame: pd.DataFrame) -> Grid:
    """Return the real-time factors for people: a row per search, means over runs."""
    measured = ["alone", "end_to_end", "alone_slower", "end_to_end_slower"]
    means = frame.groupby(["search", "run"], sort=False)[measured].mean()
    rows = []
    for search in dict.fromkeys(frame["search"]):
        own = means.loc[search]
        cells = [run_name(search), printed_rtf(study.printed, search)]
        cells += [_mean_and_range(own[name], significant) for name in measured[:2]]
        cells += [_mean_and_range(own[name], "{:.1f}".format) for name in measured[2:]]
        rows.append((*cells, _mean_and_range(1 / own["end_to_end"], partial(significant, digits=3)), str(len(own))))
    factors = [Column(label=label, group="RTF") for label in ("paper", "search alone", "end to end")]
    slower = [Column(label=label, group="× greedy") for label in ("search alone", "end to end")]
    rest = [Column(label="end to end", group="× real time"), Column(label="runs")]
    return Grid(
        name="real_time_factors",
        title="Real-time factors",
        caption=_caption(study, frame),
        columns=(Column(label="search", align="left"), *factors, *slower, *rest),
        rows=tuple(rows),
        notes=_notes(frame),
    )


def printed_rtf(printed: dict[str, Any], search: str) -> str:
    """Return a search's real-time factor as the paper prints it; "" where it prints none."""
    decoders = printed.get("decoders", {})
    factor = printed.get("attention_decoder_rtf") if search == ATTENTION else decoders.get(search, {}).get("rtf")
    return "" if factor is None else f"{factor:g}"


def _pooled(
    timing: Timing, parts: Sequence[str], *, wanted: Sequence[str], where: Path
) -> tuple[float, dict[str, float]]:
    """Return the seconds of speech in some parts together, and those of reading, encoder and each search on it."""
    decoded = {part.part: part for part in timing.parts}
    for part in parts:
        known = decoded[part].seconds if part in decoded else {}
        for name in ("features", "encoder", *wanted):
            if not known.get(name, 0) > 0:
                raise ValueError(f"{where}: does not tell how long '{name}' took on {part}; decode the run again")
    spent = {name: sum(decoded[part].seconds[name] for part in parts) for name in ("features", "encoder", *wanted)}
    return sum(decoded[part].audio_seconds for part in parts), spent


def _mean_and_range(values: pd.Series, shown: Callable[[float], str]) -> str:
    """Return "0.0031 [0.0028, 0.0034]": mean, lowest, highest; the range only where there are several."""
    mean, low, high = (shown(value) for value in (values.mean(), values.min(), values.max()))
    return f"{mean} [{low}, {high}]" if len(values) > 1 else mean


def _caption(study: StudyRecord, frame: pd.DataFrame) -> str:
    seeds = ", each the mean over its seeds" if len(study.seeds) > 1 else ""
    return (
        f"Scale “{study.scale_name}”. RTF: seconds of computing by second of speech, on "
        f"{', '.join(study.scale.parts('test'))} together; {_conditions(frame)}. Means over CTC recognisers{seeds}, "
        "with the lowest and the highest in brackets."
    )


def _conditions(frame: pd.DataFrame) -> str:
    """Return threads, device and batch of a `real_time_frame` in words."""
    threads, devices, batches = (sorted(set(frame[name])) for name in ("threads", "device", "batch_seconds"))
    shown = " or ".join(plural(number, "thread") for number in threads)
    return (
        f"{shown} on {' or '.join(devices)}, batches of up to {' or '.join(f'{batch:g}' for batch in batches)} s of "
        "speech, padding included"
    )


def _notes(frame: pd.DataFrame) -> tuple[str, ...]:
    speech = plural(frame["audio_seconds"].max(), "second")
    return (
        "Search alone: from what the CTC head says, for the attention decoder from what the encoder says, to text.",
        "End to end: from features to text, that is reading, encoder and search. The features are log-mels, computed "
        "beforehand and read from storage.",
        f"All searches of a recogniser ran in one process on the same utterances, {speech} of speech, tuned beforehand "
        "and untimed.",
        "× greedy: how many times the RTF of greedy search of the same recogniser and seed. × real time: seconds of "
        "speech by second of computing.",
        "These are measurements: they depend on machine and load and vary from run to run.",
    )
