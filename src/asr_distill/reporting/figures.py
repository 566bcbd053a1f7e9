"""The figures of a study that depend on its results alone, so that a second run draws the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from asr_distill.experiment import StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.captions import captions, captions_text
from asr_distill.reporting.claims import run_name
from asr_distill.reporting.illustrations import augmentation_figure, lattice_figure, read_illustrations
from asr_distill.reporting.inputs import read_curves, read_scores
from asr_distill.reporting.scores import MEAN


def write_figures(study: Path, *, scores: Path, runs: Path, illustrations: Path | None, output: Path) -> None:
    """Write wer_by_target, learning_curves and, with illustrations, lattice and augmentation; and captions.md.

    Args:
        study: the resolved study.yaml.
        scores: scores.csv.
        runs: folder that holds <run>/seed<seed>/curve.csv.
        illustrations: illustrations.npz, for a study that has a lattice figure.
        output: folder of the figures.
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
        for name, figure in drawn.items():
            style.save(figure, folder=output, name=name)
    (output / "captions.md").write_text(captions_text(captions(record)), encoding="utf-8")


def wer_figure(study: StudyRecord, *, scores: pd.DataFrame) -> Figure:
    """Draw one row of panels per group of runs, one column per test part: WER with interval, a dot per seed."""
    groups, parts = figure_groups(study), shown_parts(study)
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
    figure.legend(handles=_target_handles(study), loc="outside lower center", ncols=4)
    return figure


def curves_figure(study: StudyRecord, *, curves: dict[tuple[str, int], pd.DataFrame]) -> Figure:
    """Draw one column of panels per group of runs: WER of each dev part against steps, and the training loss."""
    groups = figure_groups(study)
    measures = [part for part in study.scale.parts("dev") if any(f"wer/{part}" in curve for curve in curves.values())]
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
        feet[column].legend(handles=_run_handles(study, runs), loc="upper left", borderaxespad=0)
    for row, part in enumerate(measures):
        axes[row][0].set_ylabel(f"WER on {part}, %")
        axes[row][0].set_ylim(bottom=0)
    _logarithmic(axes[-1][0])
    axes[-1][0].set_ylabel("training loss")
    return figure


def figure_groups(study: StudyRecord) -> dict[str, tuple[str, ...]]:
    """Return the groups of runs that figures show side by side; all runs at once if the study names none."""
    return study.study.figures or {"all runs": tuple(study.study.runs)}


def shown_parts(study: StudyRecord) -> tuple[str, ...]:
    """Return the test parts that decide claims; every test part if the scale names no conditions."""
    return tuple(dict.fromkeys(study.scale.conditions.values())) or study.scale.parts("test")


def _logarithmic(panel: Axes) -> None:
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(_PlainLogFormatter())
    panel.yaxis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(2, 0.5)))


class _PlainLogFormatter(LogFormatter):
    """Ticks of a logarithmic axis as plain numbers, 0.3 instead of 3 x 10^-1."""

    def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
        return f"{x:g}"


def _draw_rates(panel: Axes, study: StudyRecord, runs: tuple[str, ...], scores: pd.DataFrame) -> None:
    """Draw one line per run, the first on top."""
    for place, run in enumerate(runs):
        own = scores[scores["run"] == run].set_index("seed")
        mean, look = own.loc[MEAN], _look(study, run)
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
    for run, line in zip(runs, _line_styles(study, runs), strict=True):
        for seed in study.seeds:
            curve = curves[run, seed]
            if key not in curve:
                continue
            measured = curve[curve[key].notna()]
            look = {
                "color": _look(study, run)["color"],
                "linestyle": line,
                "alpha": 1 if len(study.seeds) == 1 else 0.6,
            }
            panel.plot(measured["step"], factor * measured[key], linewidth=1.1, **look)
    panel.grid(axis="y")
    panel.set_xlim(left=0)


def _look(study: StudyRecord, run: str) -> dict[str, str]:
    targets = study.study.runs[run].targets
    return {"color": style.TARGET_COLOURS[targets], "marker": style.TARGET_MARKERS[targets]}


def _line_styles(study: StudyRecord, runs: tuple[str, ...]) -> list[str]:
    """Return solid lines, but for runs whose kind of target an earlier run of the panel has too."""
    targets = [study.study.runs[run].targets for run in runs]
    return [style.LINES[targets[:place].count(target) % len(style.LINES)] for place, target in enumerate(targets)]


def _target_handles(study: StudyRecord) -> list[Line2D]:
    used = {study.study.runs[run].targets for runs in figure_groups(study).values() for run in runs}
    return [
        _handle(style.TARGET_LABELS[target], color=colour, marker=style.TARGET_MARKERS[target])
        for target, colour in style.TARGET_COLOURS.items()
        if target in used
    ]


def _run_handles(study: StudyRecord, runs: tuple[str, ...]) -> list[Line2D]:
    lines = _line_styles(study, runs)
    return [
        _handle(run_name(run), color=_look(study, run)["color"], linestyle=line)
        for run, line in zip(runs, lines, strict=True)
    ]


def _handle(label: str, **look: Any) -> Line2D:
    return Line2D([], [], label=label, **({"linewidth": 1.2, "markersize": 5} | look))
