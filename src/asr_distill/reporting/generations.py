"""The figure of students that teach each other: word error rate by generation."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr_distill.experiment import StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.grid import run_name
from asr_distill.reporting.looks import handle, line_styles, run_look, shown_parts
from asr_distill.reporting.scores import MEAN

APART = 0.06
"""Generations between the lines of two chains, so that their intervals do not hide each other."""


def generations_figure(study: StudyRecord, *, scores: pd.DataFrame) -> Figure:
    """Draw one panel per shown test part: WER with interval against generation, a line per chain of runs."""
    parts, looks = shown_parts(study), _looks(study)
    figure = style.new_figure(height=3)
    panels = figure.subplots(1, len(parts), squeeze=False)[0]
    rates = generation_rates(study, scores=scores)
    for panel, part in zip(panels, parts, strict=True):
        _draw_panel(panel, study, rates[rates["part"] == part], looks=looks)
        panel.set_xticks(range(rates["generation"].max() + 1))
        panel.set_title(part)
        panel.set_xlabel("generation")
        panel.set_ylabel(f"WER on {part}, %")
    handles = [handle(run_name(run), linestyle="", **run_look(study, run)) for run in _teachers(study)]
    handles += [handle(chain, **look) for chain, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def generation_rates(study: StudyRecord, *, scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row per chain, shown part and generation: chain, run, part, generation, wer, low, high.

    Rates are percent, means over seeds; generation 0 is the chain's first teacher.
    """
    means = scores[scores["seed"] == MEAN].set_index(["run", "part"])
    rows = []
    for chain, runs in study.study.generations.items():
        for part in shown_parts(study):
            for generation, run in enumerate(runs):
                rates = means.loc[(run, part), ["wer", "low", "high"]].to_dict()
                rows.append({"chain": chain, "run": run, "part": part, "generation": generation, **rates})
    return pd.DataFrame(rows)


def _teachers(study: StudyRecord) -> tuple[str, ...]:
    """Return the runs with which chains begin."""
    return tuple(dict.fromkeys(runs[0] for runs in study.study.generations.values()))


def _looks(study: StudyRecord) -> dict[str, dict[str, str]]:
    """Return colour, marker and line of each chain, which are those of its last run."""
    last = {chain: runs[-1] for chain, runs in study.study.generations.items()}
    lines = line_styles(study, list(last.values()))
    return {
        chain: run_look(study, run) | {"linestyle": line}
        for (chain, run), line in zip(last.items(), lines, strict=True)
    }


def _draw_panel(panel: Axes, study: StudyRecord, rates: pd.DataFrame, *, looks: dict[str, dict[str, str]]) -> None:
    """Draw the first teachers in their own look, and a line through the generations of each chain."""
    for place, (chain, look) in enumerate(looks.items()):
        own = rates[rates["chain"] == chain]
        beside = APART * (place - (len(looks) - 1) / 2)
        places = own["generation"] + beside * (own["generation"] > 0)
        _draw_intervals(panel, places[1:], own[1:], colour=look["color"])
        panel.plot(places, own["wer"], linewidth=1.1, markersize=4, markevery=slice(1, None), **look)
    for run in _teachers(study):
        first = rates[(rates["run"] == run) & (rates["generation"] == 0)][:1]
        look = run_look(study, run)
        _draw_intervals(panel, first["generation"], first, colour=look["color"])
        panel.plot(first["generation"], first["wer"], linestyle="", markersize=4, **look)
    panel.grid(axis="y")


def _draw_intervals(panel: Axes, places: pd.Series, rates: pd.DataFrame, *, colour: str) -> None:
    panel.vlines(places, rates["low"], rates["high"], color=colour, linewidth=0.8, alpha=0.6)
