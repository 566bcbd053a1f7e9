"""Runs that a scale adds to a study: those from which transducers start, instead of from random weights."""

from __future__ import annotations

from asr_distill.experiment.runs import AnyRun, Rehearsal, Run
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
            changes = {"initial": start, "whole_initial": scale.start.whole}
            if scale.start.rehearsed and run.labelled_share is None:
                changes["rehearsal"] = Rehearsal(audio=scale.start.audio, share=scale.start.rehearsed)
            runs[name] = run.model_copy(update=changes)
    if not starts:
        return study
    for kind, taken in (
        ("run", starts.keys() & study.runs.keys()),
        ("set", set(scale.start.audio) & study.sets.keys()),
    ):
        if taken:
            raise ValueError(f"start: the study has a {kind} '{min(taken)}' of its own; choose another name there")
    sets = dict.fromkeys(scale.start.audio, "speech from which recognisers learn first")
    return study.model_copy(
        update={
            "runs": runs | starts,
            "sets": study.sets | sets,
            "deviations": (*study.deviations, _deviation(scale)),
        }
    )


def is_start(run: AnyRun, scale: Scale) -> bool:
    """Return whether a run is there for others to start from, so that nobody asks how good it is."""
    return scale.start is not None and run.audio == scale.start.audio


def _deviation(scale: Scale) -> str:
    parts = [part for part in scale.corpus.parts.values() if not set(part.sets).isdisjoint(scale.start.audio)]
    kind = "synthetic speech" if all(part.source == "synthetic" for part in parts) else "other speech"
    sets = ", ".join(scale.start.audio)
    share = f"{100 * scale.start.rehearsed:g} % of the utterances that they hear from then on are such speech; "
    return (
        f"{'Recognisers' if scale.start.whole else 'Encoders'} start from ones of their size that learnt to transcribe "
        f"{kind} ({sets}), and that is what a random start means here; {share if scale.start.rehearsed else ''}"
        "those of Table 9 that are pre-trained without transcripts are not."
    )


def _start(run: Run, start: Start) -> Run:
    return Run(
        model=run.model,
        activation=run.activation,
        phase=start.phase,
        targets="supervised",
        audio=start.audio,
        augmentation=start.augmentation,
    )
