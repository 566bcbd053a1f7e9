"""Wall time, memory and real-time factor of the runs: figures that vary, so they stand in files of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asr_distill.experiment import StudyRecord
from asr_distill.files import write_csv, write_text
from asr_distill.reporting import style
from asr_distill.reporting.captions import captions_text, speed_caption, times_captions
from asr_distill.reporting.grid import Column, Grid, run_name, write_grid
from asr_distill.reporting.inputs import read_benchmark, read_scores, read_trainings, run_seeds
from asr_distill.reporting.real_time import real_time_frame, real_time_grid
from asr_distill.reporting.trade_off import trade_off_figure
from asr_distill.scoring.word_errors import read_references


def write_times(study: Path, *, references: Mapping[str, Path], runs: Path, scores: Path, output: Path) -> None:
    """Write times.csv, .md, .tex and speed_and_memory.svg, .png, .md into a folder.

    For a study of CTC recognisers real_time_factors.csv, .md, .tex and wer_against_rtf.svg, .png, .md too.

    Args:
        study: the resolved study.yaml.
        references: references.jsonl of every part that was decoded, by name of the part.
        runs: folder that holds <run>/seed<seed>/training.json, of CTC runs decoding.json, and, if measured, train.tsv
            and decode.tsv.
        scores: scores.csv; read for CTC runs alone.
        output: folder of the tables and figures.
    """
    record = StudyRecord.read(study)
    speech = read_references(references).groupby("part")["duration"].sum()
    frame = times_frame(record, runs=runs, speech_seconds=speech.to_dict())
    write_grid(times_grid(record, frame), folder=output)
    write_csv(output / "times.csv", frame.round(4))
    with style.house_style():
        style.save(speed_figure(frame), folder=output, name="speed_and_memory")
        if record.ctc_runs:
            speeds = real_time_frame(record, runs=runs)
            write_grid(real_time_grid(record, speeds), folder=output)
            write_csv(output / "real_time_factors.csv", speeds, float_format="%.6g")
            drawn = trade_off_figure(record, scores=read_scores(scores), speeds=speeds)
            style.save(drawn, folder=output, name="wer_against_rtf")
    for name, caption in times_captions(record).items():
        write_text(output / f"{name}.md", captions_text({name: caption}))


def times_frame(study: StudyRecord, *, runs: Path, speech_seconds: Mapping[str, float]) -> pd.DataFrame:
    """Return one row per run and seed: device, seconds and megabytes of training and decoding, real-time factor.

    Args:
        study: the study.
        runs: folder that holds <run>/seed<seed>/training.json and, if measured, train.tsv and decode.tsv.
        speech_seconds: length of every part that is decoded.
    """
    trainings = read_trainings(study, runs=runs)
    rows = []
    for run, seed in run_seeds(study):
        folder = runs / study.run_folder(run, seed)
        train, decode = (read_benchmark(folder / f"{job}.tsv") for job in ("train", "decode"))
        row = {"run": run, "seed": seed, "device": trainings[run, seed].device}
        row |= {"loop_seconds": trainings[run, seed].seconds}
        row |= {"train_seconds": train.seconds, "train_megabytes": train.megabytes}
        row |= {"decode_seconds": decode.seconds, "decode_megabytes": decode.megabytes}
        speech = sum(speech_seconds[part] for part in study.scored(run))
        row["real_time_factor"] = decode.seconds / speech if speech else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def times_grid(study: StudyRecord, frame: pd.DataFrame) -> Grid:
    """Return the times for people."""
    labels = {"train": ("loop, s", "job, s", "memory, MB"), "decode": ("job, s", "memory, MB", "RTF")}
    columns = [Column(label="run", align="left"), Column(label="seed"), Column(label="device", align="left")]
    columns += [Column(label=label, group=group) for group, group_labels in labels.items() for label in group_labels]
    rows = tuple(
        (
            run_name(row["run"]),
            str(row["seed"]),
            row["device"],
            *(_shown(row[key], decimals=1) for key in ("loop_seconds", "train_seconds")),
            _shown(row["train_megabytes"], decimals=0),
            _shown(row["decode_seconds"], decimals=1),
            _shown(row["decode_megabytes"], decimals=0),
            _shown(row["real_time_factor"], decimals=4),
        )
        for row in frame.to_dict("records")
    )
    return Grid(
        name="times",
        title="Wall time, memory and real-time factor",
        caption=f"Scale “{study.scale_name}”. {speed_caption(study)}",
        columns=tuple(columns),
        rows=rows,
    )


def speed_figure(frame: pd.DataFrame) -> Figure:
    """Draw three panels of bars, one bar per run: training time, training memory, real-time factor."""
    panels = {
        "train_seconds": ("training job, minutes", 1 / 60),
        "train_megabytes": ("peak memory of training, GB", 1 / 1000),
        "real_time_factor": ("real-time factor of decoding", 1.0),
    }
    means = frame.groupby("run", sort=False)[list(panels)].mean()
    figure = style.new_figure(height=0.8 + 0.26 * len(means))
    axes = figure.subplots(1, len(panels), sharey=True)
    places = np.arange(len(means))
    for panel, (key, (label, factor)) in zip(axes, panels.items(), strict=True):
        values = factor * means[key].to_numpy()
        panel.barh(places, np.nan_to_num(values), height=0.55, color="#56B4E9")
        for place, value in zip(places, values, strict=True):
            text = "n/a" if math.isnan(value) else f"{value:.3g}"
            panel.annotate(text, (np.nan_to_num(value), place), (3, 0), textcoords="offset points", va="center", size=7)
        panel.set_xlabel(label)
        panel.margins(x=0.22)
        panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(4))
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
    axes[0].set_yticks(places, [run_name(run) for run in means.index])
    axes[0].invert_yaxis()
    return figure


def _shown(value: float, *, decimals: int) -> str:
    return "" if math.isnan(value) else f"{value:.{decimals}f}"
