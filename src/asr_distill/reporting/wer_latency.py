"""The figure of word error rate against emission latency: delayed soft targets as a line, other methods as points."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr_distill.experiment import StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.grid import run_name
from asr_distill.reporting.looks import handle, run_look, shown_parts
from asr_distill.reporting.scores import MEAN

MARKERS = ("^", "s", "D", "v", "P", "X", "<", ">", "*", "h")
"""Of the runs that are no part of the sweep, in their order."""


def latency_figure(study: StudyRecord, *, scores: pd.DataFrame, latencies: pd.DataFrame) -> Figure:
    """Draw one panel per part: WER against mean emission latency, both with their intervals, of the shift sweep.

    Args:
        study: a study that has a shift sweep.
        scores: as `read_scores` returns them.
        latencies: as `read_latency` returns them.
    """
    shown, parts = study.study.shift_sweep, shown_parts(study)
    points = latency_points(study, scores=scores, latencies=latencies)
    sweep = run_look(study, shown.runs[0])
    others = {run: _look(study, run, marker) for run, marker in zip(shown.others, cycle(MARKERS), strict=False)}
    figure = style.new_figure(height=3.9)
    axes = figure.subplots(1, len(parts), squeeze=False)[0]
    for panel, part in zip(axes, parts, strict=True):
        own = points[points["part"] == part].set_index("run")
        _draw_sweep(panel, own.loc[[run for run in shown.runs if run in own.index]], look=sweep)
        for run, look in others.items():
            _draw_points(panel, own.loc[own.index == run], look=look)
        panel.set_title(part)
        panel.set_xlabel("mean emission latency, ms")
        panel.grid()
    axes[0].set_ylabel("WER, %")
    handles = [handle("soft targets, teacher delayed by … ms", **sweep, linestyle="-")]
    handles += [handle(run_name(run), **look, linestyle="") for run, look in others.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def latency_points(study: StudyRecord, *, scores: pd.DataFrame, latencies: pd.DataFrame) -> pd.DataFrame:
    """Return what is drawn, a row per part and run: part, run, shift, wer and latency, each with _low and _high.

    Rates are percent, means over seeds; shift and latency are milliseconds. A run is left out where no word is right.
    """
    sweep = study.study.shift_sweep
    rates = scores[scores["seed"] == MEAN].set_index(["run", "part"])
    times = latencies.set_index(["run", "part"])
    rows = []
    for part in shown_parts(study):
        for run in (*sweep.runs, *sweep.others):
            row = {"part": part, "run": run, "shift": study.teacher_shift_ms(run)}
            own = rates.loc[(run, part)]
            row |= {"wer": own["wer"], "wer_low": own["low"], "wer_high": own["high"]}
            row |= times.loc[(run, part), ["latency", "latency_low", "latency_high"]].to_dict()
            rows.append(row)
    points = pd.DataFrame(rows)
    return points[np.isfinite(points["latency"].astype(float))].reset_index(drop=True)


def _look(study: StudyRecord, run: str, marker: str) -> dict[str, str]:
    """Return how a run is drawn that is no part of the sweep: hollow where its colour is the sweep's."""
    colour, of_sweep = (run_look(study, name)["color"] for name in (run, study.study.shift_sweep.runs[0]))
    return {"color": colour, "marker": marker, "fillstyle": "none" if colour == of_sweep else "full"}


def _draw_sweep(panel: Axes, points: pd.DataFrame, *, look: Mapping[str, str]) -> None:
    """Draw the points of the sweep, joined in the order of their shifts, which are written beside them."""
    panel.plot(points["latency"], points["wer"], color=look["color"], linewidth=0.9, alpha=0.6)
    _draw_points(panel, points, look=look)
    for point in points.itertuples():
        panel.annotate(
            f"{point.shift:g}",
            (point.latency, point.wer),
            (4, 3),
            textcoords="offset points",
            fontsize=6.5,
            color=style.INK,
        )


def _draw_points(panel: Axes, points: pd.DataFrame, *, look: Mapping[str, str]) -> None:
    """Draw points with the intervals of both measures."""
    bars = {"color": look["color"], "linewidth": 0.8, "alpha": 0.5}
    panel.hlines(points["wer"], points["latency_low"], points["latency_high"], **bars)
    panel.vlines(points["latency"], points["wer_low"], points["wer_high"], **bars)
    panel.plot(points["latency"], points["wer"], linestyle="", markersize=5, **look)
