"""The figure of what a decoder costs and what it brings: word error rate against real-time factor."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asr_distill.experiment import GREEDY, StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.grid import run_name
from asr_distill.reporting.looks import handle, logarithmic, run_look, shown_parts, target_handles
from asr_distill.reporting.scores import MEAN

MARKERS = ("o", "^", "D", "s", "v", "P", "X")
"""Of the searches, in their order."""
DECADE = 10
"""From this ratio of the slowest to the fastest on, the axis of real-time factors is logarithmic."""


def trade_off_figure(study: StudyRecord, *, scores: pd.DataFrame, speeds: pd.DataFrame) -> Figure:
    """Draw one panel per shown test part: WER against end-to-end real-time factor, a point per CTC run and search.

    Args:
        study: the study.
        scores: as `read_scores` returns them.
        speeds: as `real_time_frame` returns them.
    """
    points, parts = trade_off_points(study, scores=scores, speeds=speeds), shown_parts(study)
    markers = dict(zip(dict.fromkeys(points["search"]), MARKERS, strict=False))
    figure = style.new_figure(height=3.4)
    axes = figure.subplots(1, len(parts), squeeze=False, sharex=True)[0]
    for panel, part in zip(axes, parts, strict=True):
        for run, own in points[points["part"] == part].groupby("run", sort=False):
            _draw_run(panel, own, colour=run_look(study, run)["color"], markers=markers)
        panel.set_title(part)
        panel.set_xlabel("real-time factor, features to text")
        logarithmic(panel, "y")  # a decoder that does not stop makes several times as many errors
        panel.grid(axis="both", which="both")
    if points["rtf"].max() >= DECADE * points["rtf"].min():
        logarithmic(axes[0], "x")
    else:
        axes[0].xaxis.set_major_locator(MaxNLocator(5))
        axes[0].xaxis.set_major_formatter(lambda factor, _: f"{factor:g}")
    axes[0].set_ylabel("WER, %")
    kinds = target_handles(study, dict.fromkeys(points["run"]))
    for kind in kinds:
        kind.set(marker="", linewidth=2.5)
    searches = [
        handle(run_name(search), color=style.INK, marker=marker, linestyle="") for search, marker in markers.items()
    ]
    figure.legend(handles=searches, loc="outside upper center", ncols=len(searches))
    figure.legend(handles=kinds, loc="outside lower center", ncols=len(kinds))
    return figure


def trade_off_points(study: StudyRecord, *, scores: pd.DataFrame, speeds: pd.DataFrame) -> pd.DataFrame:
    """Return one row per shown part, CTC run and search: part, run, search, rtf, wer, low, high; means over seeds."""
    means = scores[scores["seed"] == MEAN].set_index(["run", "part"])
    factors = speeds.groupby(["run", "search"], sort=False)["end_to_end"].mean()
    rows = []
    for part in shown_parts(study):
        for (run, search), factor in factors.items():
            rates = means.loc[run if search == GREEDY else f"{run}@{search}", part]
            row = {"part": part, "run": run, "search": search, "rtf": factor}
            rows.append(row | rates[["wer", "low", "high"]].to_dict())
    return pd.DataFrame(rows)


def _draw_run(panel: Axes, points: pd.DataFrame, *, colour: str, markers: dict[str, str]) -> None:
    """Draw the points of one run with their intervals, joined by a faint line from the fastest to the slowest."""
    points = points.sort_values("rtf")
    panel.plot(points["rtf"], points["wer"], color=colour, linewidth=0.5, alpha=0.35)
    panel.vlines(points["rtf"], points["low"], points["high"], color=colour, linewidth=0.7, alpha=0.5)
    for point in points.itertuples():
        panel.plot(point.rtf, point.wer, markers[point.search], color=colour, markersize=4.5, alpha=0.85)
