"""The figures of a study that depend on its results alone, so that a second run draws the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asr_distill.experiment import StudyRecord
from asr_distill.files import write_text
from asr_distill.reporting import style
from asr_distill.reporting.captions import captions, captions_text
from asr_distill.reporting.generations import generations_figure
from asr_distill.reporting.grid import run_name
from asr_distill.reporting.illustrations import augmentation_figure, lattice_figure, read_illustrations
from asr_distill.reporting.inputs import read_curves, read_errors, read_scores
from asr_distill.reporting.knowledge_figure import knowledge_figure, read_distributions
from asr_distill.reporting.latency import read_latency
from asr_distill.reporting.layers import layers_figure
from asr_distill.reporting.looks import (
    figure_groups,
    line_styles,
    logarithmic,
    run_handles,
    run_look,
    shown_parts,
    target_handles,
)
from asr_distill.reporting.scores import MEAN
from asr_distill.reporting.weak_teachers import gain_figure, gains_frame
from asr_distill.reporting.wer_latency import latency_figure


def write_figures(
    study: Path,
    *,
    scores: Path,
    runs: Path,
    illustrations: Path | None,
    output: Path,
    knowledge: Path | None = None,
    latency: Path | None = None,
    errors: Path | None = None,
) -> None:
    """Write wer_by_target, learning_curves and, with illustrations, lattice and augmentation; and captions.md.

    Args:
        study: the resolved study.yaml.
        scores: scores.csv.
        runs: folder that holds <run>/seed<seed>/curve.csv.
        illustrations: illustrations.npz, for a study that has a lattice figure.
        output: folder of the figures.
        knowledge: knowledge.npz, for a study that has a figure of BERT's knowledge, which is then drawn too.
        latency: latency.csv, for a study with a shift sweep.
        errors: errors.csv, for a study with teachers of different quality.
    """
    record = StudyRecord.read(study)
    with style.house_style():
        drawn = {
            "wer_by_target": wer_figure(record, scores=read_scores(scores)),
            "learning_curves": curves_figure(record, curves=read_curves(record, runs=runs)),
        }
        if illustrations is not None:
            arrays = read_illustrations(illustrations, record)
            drawn["lattice"] = lattice_figure(record, arrays)
            drawn["augmentation"] = augmentation_figure(record, arrays)
        if knowledge is not None:
            drawn["knowledge"] = knowledge_figure(record, read_distributions(knowledge, record))
        if record.ctc_runs:
            drawn["wer_by_layer"] = layers_figure(record, scores=read_scores(scores))
        if record.study.generations:
            drawn["wer_by_generation"] = generations_figure(record, scores=read_scores(scores))
        if record.study.shift_sweep is not None and record.timed_runs:
            timed = read_latency(latency)
            drawn["wer_against_latency"] = latency_figure(record, scores=read_scores(scores), latencies=timed)
        if record.study.weak_teachers is not None:
            drawn["gain_by_teacher"] = gain_figure(record, gains_frame(record, errors=read_errors(errors)))
        for name, figure in drawn.items():
            style.save(figure, folder=output, name=name)
    write_text(output / "captions.md", captions_text(captions(record)))


def wer_figure(study: StudyRecord, *, scores: pd.DataFrame) -> Figure:
    """Draw one row of panels per group of runs, one column per test part: WER with interval, a dot per seed."""
    groups, parts = figure_groups(study), shown_parts(study)
    drawn = [run for runs in groups.values() for run in runs]
    sizes = [len(runs) for runs in groups.values()]
    figure = style.new_figure(height=0.75 + sum(0.3 * size + 0.55 for size in sizes))
    axes = figure.subplots(
        len(groups), len(parts), squeeze=False, sharex="col", sharey="row", height_ratios=[size + 0.8 for size in sizes]
    )
    for row, (title, runs) in zip(axes, groups.items(), strict=True):
        for panel, part in zip(row, parts, strict=True):
            _draw_rates(panel, study, runs, scores[scores["part"] == part])
        row[0].set_title(title)
    for panel, part in zip(axes[-1], parts, strict=True):
        panel.set_xlabel(f"WER on {part}, %")
    figure.legend(handles=target_handles(study, drawn), loc="outside lower center", ncols=4)
    return figure


def curves_figure(study: StudyRecord, *, curves: dict[tuple[str, int], pd.DataFrame]) -> Figure:
    """Draw one column of panels per group of runs: WER of each dev part against steps, and the training loss."""
    groups = figure_groups(study)
    measures = [part for part in study.scored_parts if any(f"wer/{part}" in curve for curve in curves.values())]
    legend = 0.1 + 0.16 * max(len(runs) for runs in groups.values())
    figure = style.new_figure(height=0.5 + 1.75 * (len(measures) + 1) + legend)
    *axes, feet = figure.subplots(
        len(measures) + 2,
        len(groups),
        squeeze=False,
        sharey="row",
        height_ratios=[1.75] * (len(measures) + 1) + [legend],
    )
    for column, (title, runs) in enumerate(groups.items()):
        axes[0][column].set_title(title)
        for row, part in enumerate(measures):
            _draw_curves(axes[row][column], study, runs, curves, key=f"wer/{part}", factor=100)
            axes[row][column].tick_params(labelbottom=False)
        _draw_curves(axes[-1][column], study, runs, curves, key="loss", factor=1)
        axes[-1][column].set_xlabel("step")
        feet[column].axis("off")
        feet[column].legend(handles=run_handles(study, runs), loc="upper left", borderaxespad=0)
    for row, part in enumerate(measures):
        axes[row][0].set_ylabel(f"WER on {part}, %")
        axes[row][0].set_ylim(bottom=0)
    logarithmic(axes[-1][0], "y")
    axes[-1][0].set_ylabel("training loss")
    return figure


def _draw_rates(panel: Axes, study: StudyRecord, runs: tuple[str, ...], scores: pd.DataFrame) -> None:
    """Draw one line per run, the first on top."""
    for place, run in enumerate(runs):
        own = scores[scores["run"] == run].set_index("seed")
        mean, look = own.loc[MEAN], run_look(study, run)
        if np.isfinite([mean["low"], mean["high"]]).all():
            panel.plot([mean["low"], mean["high"]], [place, place], color=look["color"], linewidth=1.4)
        seeds = own.drop(index=MEAN)["wer"]
        if len(seeds) > 1:
            panel.plot(seeds, [place + 0.24] * len(seeds), "|", color=look["color"], markersize=4, alpha=0.7)
        panel.plot(mean["wer"], place, look["marker"], color=look["color"], markersize=5)
        panel.annotate(
            f"{mean['wer']:.1f}", (mean["wer"], place), (0, 5), textcoords="offset points", ha="center", fontsize=7
        )
    panel.set_yticks(range(len(runs)), [run_name(run) for run in runs])
    panel.set_ylim(len(runs) - 0.5, -0.7)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x")
    panel.margins(x=0.08)
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _draw_curves(
    panel: Axes,
    study: StudyRecord,
    runs: tuple[str, ...],
    curves: dict[tuple[str, int], pd.DataFrame],
    *,
    key: str,
    factor: float,
) -> None:
    """Draw one line per run and seed where it was measured."""
    for run, line in zip(runs, line_styles(study, runs), strict=True):
        for seed in study.seeds:
            curve = curves[run, seed]
            if key not in curve:
                continue
            measured = curve[curve[key].notna()]
            look = {
                "color": run_look(study, run)["color"],
                "linestyle": line,
                "alpha": 1 if len(study.seeds) == 1 else 0.6,
            }
            panel.plot(measured["step"], factor * measured[key], linewidth=1.1, **look)
    panel.grid(axis="y")
    panel.set_xlim(left=0)
