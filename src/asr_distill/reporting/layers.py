"""The figure of what the CTC head makes of every encoder layer: word error rate by layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr_distill.experiment import StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.captions import HIGHEST_WER
from asr_distill.reporting.grid import run_name
from asr_distill.reporting.looks import figure_groups, handle, line_styles, logarithmic, run_look, shown_parts
from asr_distill.reporting.scores import MEAN

FILLS = ("full", "none", "right")
"""Of markers, where the lines of a kind of target are used up."""


def layers_figure(study: StudyRecord, *, scores: pd.DataFrame) -> Figure:
    """Draw one row of panels per group of runs, one column per shown test part: greedy WER by encoder layer."""
    rates, parts = layer_rates(study, scores=scores), shown_parts(study)
    groups = {title: [run for run in runs if run in study.ctc_runs] for title, runs in figure_groups(study).items()}
    groups = {title: runs for title, runs in groups.items() if runs}
    figure = style.new_figure(height=0.4 + 1.9 * len(groups))
    axes = figure.subplots(
        len(groups), len(parts) + 1, squeeze=False, sharex=True, sharey=True, width_ratios=[*[1] * len(parts), 0.55]
    )
    for (*row, legend), (title, runs) in zip(axes, groups.items(), strict=True):
        looks = _looks(study, runs)
        for panel, part in zip(row, parts, strict=True):
            _draw_panel(panel, rates[rates["part"] == part], looks=looks)
            panel.set_ylabel(f"WER on {part}, %")
        row[0].set_title(title)
        legend.axis("off")
        handles = [handle(run_name(run), **look) for run, look in looks.items()]
        legend.legend(handles=handles, loc="upper left", borderaxespad=0)
    for panel in axes[-1][:-1]:
        panel.set_xlabel("encoder layer")
    axes[0][0].set_xticks(range(1, rates["layer"].max() + 1))
    drawn = rates[["wer", "low", "high"]].to_numpy(dtype=float)
    drawn = drawn[np.isfinite(drawn) & (drawn > 0)]
    logarithmic(axes[0][0], "y")
    axes[0][0].set_ylim(0.85 * drawn.min(initial=HIGHEST_WER), HIGHEST_WER)
    return figure


def layer_rates(study: StudyRecord, *, scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row per CTC run, shown part and encoder layer: run, part, layer, wer, low, high; means over seeds."""
    means = scores[scores["seed"] == MEAN].set_index(["run", "part"])
    rows = []
    for run in study.ctc_runs:
        final = study.scale.ctc_models[study.study.runs[run].model].encoder.layers
        for part in shown_parts(study):
            for layer in range(1, final + 1):
                system = run if layer == final else f"{run}@layer_{layer}"
                rates = means.loc[(system, part), ["wer", "low", "high"]]
                rows.append({"run": run, "part": part, "layer": layer, **rates.to_dict()})
    return pd.DataFrame(rows)


def _looks(study: StudyRecord, runs: list[str]) -> dict[str, dict[str, str]]:
    """Return colour, marker and line of the runs of one group, no two alike."""
    looks: dict[str, dict[str, str]] = {}
    for run, line in zip(runs, line_styles(study, runs), strict=True):
        look = run_look(study, run) | {"linestyle": line}
        used = sum(look.items() <= other.items() for other in looks.values())
        looks[run] = look | {"fillstyle": FILLS[used % len(FILLS)]}
    return looks


def _draw_panel(panel: Axes, rates: pd.DataFrame, *, looks: Mapping[str, Mapping[str, str]]) -> None:
    """Draw the runs of one group, each a little to the side, so that their intervals do not hide each other."""
    for place, (run, look) in enumerate(looks.items()):
        own = rates[rates["run"] == run]
        places = own["layer"] + 0.04 * (place - (len(looks) - 1) / 2)
        panel.vlines(places, own["low"], own["high"], color=look["color"], linewidth=0.8, alpha=0.6)
        panel.plot(places, own["wer"], linewidth=1.1, markersize=4, **look)
    panel.tick_params(labelbottom=True)
    panel.grid(axis="y", which="both")
