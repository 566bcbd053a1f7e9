"""Runs that a scale adds to a study: those from which encoders start, instead of from random weights."""

from __future__ import annotations

from asr_distill.experiment.base import Name
from asr_distill.experiment.runs import Run
from asr_distill.experiment.scale import Scale, Start
from asr_distill.experiment.study import Study


def with_starts(study: Study, scale: Scale) -> Study:
    """Return the study with a start for every run of a transducer that names none, if the scale has any.

    Raises:
        ValueError: when the study has a run or a set of such a name already.
    """
    if scale.start is None:
        return study
    runs, starts = dict(study.runs), {}
    for name, run in study.runs.items():
        if run.recogniser == "transducer" and run.initial is None:
            start = f"start_{run.model}" if run.activation is None else f"start_{run.model}_{run.activation}"
            starts[start] = _start(run, scale.start)
            runs[name] = run.model_copy(update={"initial": start})
    if not starts:
        return study
    for kind, taken in (
        ("run", starts.keys() & study.runs.keys()),
        ("set", set(scale.start.audio) & study.sets.keys()),
    ):
        if taken:
            raise ValueError(f"start: the study has a {kind} '{min(taken)}' of its own; choose another name there")
    sets = dict.fromkeys(scale.start.audio, "speech from which encoders learn first")
    return study.model_copy(update={"runs": starts | runs, "sets": study.sets | sets})


def start_sets(scale: Scale) -> tuple[Name, ...]:
    """Return the sets of parts that are there for starts alone, on whose speech nothing is judged."""
    return () if scale.start is None else scale.start.audio


def _start(run: Run, start: Start) -> Run:
    return Run(
        model=run.model,
        activation=run.activation,
        phase=start.phase,
        targets="supervised",
        audio=start.audio,
        augmentation=start.augmentation,
    )
