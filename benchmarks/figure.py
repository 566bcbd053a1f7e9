"""The figure of the sweeps: time and memory against the sizes of the lattice."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from asr_distill.reporting import style

AXES = {"frames": "encoder frames T", "labels": "labels U", "vocabulary": "vocabulary V"}
MEASURES = {"min_seconds": ("time, ms", 1000.0), "peak_megabytes": ("memory, MB", 1.0)}
LOSS_COLOURS = {"transducer": "#0072B2", "divergence": "#D55E00"}
"""Okabe & Ito 2008: told apart by colour-blind readers; the line and its marker tell them apart too."""
WHOSE = {
    ("ours", "float32"): ("ours, float32", "-", "o"),
    ("ours", "bf16"): ("ours, bf16 products", "--", "s"),
    ("torchaudio", "float32"): ("torchaudio, float32", ":", "^"),
    ("plain", "float32"): ("plain PyTorch, float32", "-.", "D"),
}


def sweep_figure(frame: pd.DataFrame) -> Figure:
    """Draw a row of panels per measure and a column per size that was varied, both axes logarithmic."""
    figure = style.new_figure(height=4.8)
    panels = figure.subplots(len(MEASURES), len(AXES), sharex="col", sharey="row")
    for row, (measure, (label, factor)) in zip(panels, MEASURES.items(), strict=True):
        for panel, axis in zip(row, AXES, strict=True):
            swept = frame[frame["axis"] == axis]
            _draw(panel, swept, axis=axis, measure=measure, factor=factor)
        row[0].set_ylabel(label)
    for panel, (axis, label) in zip(panels[-1], AXES.items(), strict=True):
        values = sorted(frame.loc[frame["axis"] == axis, axis].unique())
        panel.set_xticks(values, [f"{value}" for value in values])
        panel.set_xlabel(label)
    figure.legend(handles=_handles(frame), loc="outside lower center", ncols=3)
    return figure


def _draw(panel: Axes, swept: pd.DataFrame, *, axis: str, measure: str, factor: float) -> None:
    for (subject, precision), line in swept.groupby(["subject", "precision"], sort=False):
        measured = line[line[measure].notna() & (line[measure] > 0)]
        if len(measured):
            panel.plot(measured[axis], factor * measured[measure], **_look(subject, precision))
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.xaxis.minorticks_off()
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(axis="y")


def _look(subject: str, precision: str) -> dict[str, object]:
    whose, loss = subject.split("_", maxsplit=1)
    _, line, marker = WHOSE[whose, precision]
    return {"color": LOSS_COLOURS[loss], "linestyle": line, "marker": marker, "linewidth": 1.1, "markersize": 4}


def _handles(frame: pd.DataFrame) -> list[Line2D]:
    names = {"transducer": "RNN-T", "divergence": "full KL"}
    handles = []
    for subject, precision in frame[["subject", "precision"]].drop_duplicates().itertuples(index=False):
        whose, loss = subject.split("_", maxsplit=1)
        label = f"{names[loss]}: {WHOSE[whose, precision][0]}"
        handles.append(Line2D([], [], label=label, **_look(subject, precision)))
    return handles
