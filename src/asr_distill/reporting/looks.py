"""How runs look in figures: colour and marker by kind of target, lines, legends, logarithmic axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from asr_distill.experiment import StudyRecord, is_start
from asr_distill.reporting import style
from asr_distill.reporting.grid import run_name


def figure_groups(study: StudyRecord) -> dict[str, tuple[str, ...]]:
    """Return the groups of runs that figures show side by side; all recognisers at once if the study names none."""
    shown = (name for name, run in study.study.recognisers.items() if not is_start(run, study.scale))
    return study.study.figures or {"all runs": tuple(shown)}


def shown_parts(study: StudyRecord) -> tuple[str, ...]:
    """Return the test parts that decide claims and that all runs of the figures are scored on.

    Where these include parts of sets, which runs ask for, only those; every test part if the scale names no conditions.
    """
    scored = [study.scored(run) for runs in figure_groups(study).values() for run in runs]
    parts = dict.fromkeys(study.scale.conditions.values())
    found = tuple(part for part in parts if all(part in own for own in scored))
    of_sets = tuple(part for part in found if study.scale.corpus.parts[part].part_set is not None)
    return of_sets or found or study.scale.parts("test")


def run_look(study: StudyRecord, run: str) -> dict[str, str]:
    """Return colour and marker of a run, which are those of its kind of target."""
    targets = study.study.runs[run].targets
    return {"color": style.TARGET_COLOURS[targets], "marker": style.TARGET_MARKERS[targets]}


def line_styles(study: StudyRecord, runs: Sequence[str]) -> list[str]:
    """Return solid lines, but for runs whose kind of target an earlier run of the panel has too."""
    targets = [study.study.runs[run].targets for run in runs]
    return [style.LINES[targets[:place].count(target) % len(style.LINES)] for place, target in enumerate(targets)]


def target_handles(study: StudyRecord, runs: Iterable[str]) -> list[Line2D]:
    """Return a legend of the kinds of target that runs have."""
    used = {study.study.runs[run].targets for run in runs}
    return [
        handle(style.TARGET_LABELS[target], color=colour, marker=style.TARGET_MARKERS[target])
        for target, colour in style.TARGET_COLOURS.items()
        if target in used
    ]


def run_handles(study: StudyRecord, runs: Sequence[str]) -> list[Line2D]:
    """Return a legend of runs by colour and line."""
    lines = line_styles(study, runs)
    return [
        handle(run_name(run), color=run_look(study, run)["color"], linestyle=line)
        for run, line in zip(runs, lines, strict=True)
    ]


def handle(label: str, **look: Any) -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], label=label, **({"linewidth": 1.2, "markersize": 5} | look))


def logarithmic(panel: Axes, which: Literal["x", "y"]) -> None:
    """Make one axis of a panel logarithmic, with plain numbers at its ticks."""
    panel.set(**{f"{which}scale": "log"})
    axis = panel.xaxis if which == "x" else panel.yaxis
    axis.set_major_formatter(_PlainLogFormatter())
    axis.set_minor_formatter(_PlainLogFormatter(minor_thresholds=(2, 0.5)))


class _PlainLogFormatter(LogFormatter):
    """Ticks of a logarithmic axis as plain numbers, 0.3 instead of 3 x 10^-1."""

    def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
        return f"{x:g}"
