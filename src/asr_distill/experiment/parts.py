"""Which parts of the corpus a run trains on and is scored on, and what of a study a scale has no parts for."""

from __future__ import annotations

from asr_distill.experiment.base import Name
from asr_distill.experiment.runs import AnyRun, needed_runs
from asr_distill.experiment.scale import Scale
from asr_distill.experiment.study import Study

NO_SET = ("labelled", "unlabelled")
"""What a run's audio may name beside sets: the parts of that use that belong to no set."""


def named_sets(run: AnyRun) -> tuple[Name, ...]:
    """Return the sets of parts that a run asks for."""
    return tuple(name for name in run.audio if name not in NO_SET)


def rehearsed_sets(run: AnyRun) -> tuple[Name, ...]:
    """Return the sets of parts that a run goes on hearing beside its own speech."""
    rehearsal = run.rehearsal if run.recogniser == "transducer" else None
    return rehearsal.audio if rehearsal is not None else ()


def heard_sets(run: AnyRun) -> tuple[Name, ...]:
    """Return the sets of parts that a run listens to: those that it asks for, and those that it rehearses."""
    return (*named_sets(run), *rehearsed_sets(run))


def study_sets(study: Study, scale: Scale) -> tuple[Name, ...]:
    """Return the sets of parts that any run of a study listens to, in the order of the scale."""
    heard = {name for run in study.runs.values() for name in heard_sets(run)}
    return tuple(name for name in scale.corpus.sets if name in heard)


def training_parts(run: AnyRun, scale: Scale) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parts that a run trains on with human transcripts, and those on which a teacher's take their place."""
    heard = {
        name: part
        for name, part in scale.corpus.parts.items()
        if part.use in NO_SET and not {part.part_set or part.use, *part.also_in}.isdisjoint(run.audio)
    }
    human = run.recogniser != "transducer" or run.human_labels
    labelled = tuple(name for name, part in heard.items() if part.use == "labelled" and human)
    return labelled, tuple(name for name in heard if name not in labelled)


def rehearsed_parts(run: AnyRun, scale: Scale) -> tuple[str, ...]:
    """Return the parts with transcripts that a run goes on hearing beside its own."""
    asked = set(rehearsed_sets(run))
    return tuple(name for name, part in scale.corpus.parts.items() if not asked.isdisjoint(part.sets))


def normalising_parts(study: Study, run: AnyRun, scale: Scale) -> tuple[str, ...]:
    """Return the parts whose features decide how a run normalises its own: those of the first of its teachers.

    So that students hear alike, whatever they learn from, on speech that the teacher does not know too.
    """
    while run.teacher is not None:
        run = study.runs[run.teacher]
    labelled, unlabelled = training_parts(run, scale)
    return labelled or unlabelled


def scored_parts(run: AnyRun, scale: Scale) -> tuple[str, ...]:
    """Return the dev and then the test parts that a run is scored on; none where it transcribes nothing."""
    if run.recogniser == "best_rq":
        return ()
    sets = named_sets(run)
    return (*scale.parts("dev", sets=sets), *scale.parts("test", sets=sets))


def without_missing_sets(study: Study, scale: Scale) -> tuple[Study, dict[str, str]]:
    """Return the part of a study that a scale has speech for, and its other tables and claims with what they lack."""
    missing = [name for name in study.sets if name not in scale.corpus.sets]
    lost = {name for name, run in study.runs.items() if not set(missing).isdisjoint(heard_sets(run))}
    while more := {name for name, run in study.runs.items() if not lost.isdisjoint(needed_runs(run))} - lost:
        lost |= more
    if not lost:
        return study, {}
    users = {name: {row.run.partition("@")[0] for row in table.rows if row.run} for name, table in study.tables.items()}
    kept = study.part(
        {name: table for name, table in study.tables.items() if lost.isdisjoint(users[name])},
        study.runs.keys() - lost,
    )
    users |= {name: claim.runs() for name, claim in study.claims.items()}
    why = f"the corpus lacks the sets of parts {', '.join(missing)}"
    return kept, {name: why for name, runs in users.items() if not lost.isdisjoint(runs)}
