"""Checks of who uses which parts of the corpus: sets, columns and conditions that lead somewhere."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from asr_distill.experiment.base import check_known
from asr_distill.experiment.corpora import SpeakersPart
from asr_distill.experiment.parts import (
    NO_SET,
    named_sets,
    rehearsed_parts,
    rehearsed_sets,
    scored_parts,
    training_parts,
)
from asr_distill.experiment.runs import AnyRun
from asr_distill.experiment.scale import Scale
from asr_distill.experiment.starts import is_start
from asr_distill.experiment.study import Study


def check_parts(scale: Scale, *, where: str) -> None:
    """Check names and order of a scale's parts and sets, and that columns and conditions are parts that are scored.

    Raises:
        ValueError: naming the key, what was found and the nearest right word.
    """
    last = None
    for name, part in scale.corpus.parts.items():
        at = f"{where}: corpus.parts.{name}"
        if name == "mean":
            raise ValueError(f"{at}: the name is taken by the mean over parts; choose another")
        if part.part_set is not None and part.also_in:
            raise ValueError(f"{at}.also_in: is for parts without a set, and this one is of '{part.part_set}'")
        for key, part_set in (("part_set", part.part_set), *(("also_in", other) for other in part.also_in)):
            if part_set in NO_SET:
                raise ValueError(f"{at}.{key}: '{part_set}' is what parts without a set are called; choose another")
        if part.source == "synthetic" and part.text is not None and part.part_set is None:
            raise ValueError(f"{at}.text: is for parts of a set; name its part_set")
        if part.part_set is None and last is not None:
            raise ValueError(f"{at}: stands after '{last}', which belongs to a set; write the parts of sets last")
        last = name if part.part_set is not None else None
    sets = scale.corpus.sets
    tests = scale.parts("test", sets=sets)
    for column, part in scale.columns.items():
        check_known(part, scale.parts("dev", sets=sets) + tests, f"{where}: columns.{column}", "part for dev or test")
    for condition, part in scale.conditions.items():
        check_known(part, tests, f"{where}: conditions.{condition}", "part for test")


def check_shared_lists(scale: Scale, *, where: str) -> None:
    """Check that parts which take speakers of one list, of the same ages, leave each other some.

    Raises:
        ValueError: naming the part that takes too many.
    """
    parts = [(name, part) for name, part in scale.corpus.parts.items() if isinstance(part, SpeakersPart)]
    for position, (name, part) in enumerate(parts):
        rivals = [other for other, its in parts if other != name and _share_speakers(part, its)]
        later = [other for other, its in parts[position + 1 :] if _share_speakers(part, its)]
        at = f"{where}: corpus.parts.{name}.speakers"
        if part.speakers == "all" and rivals:
            raise ValueError(f"{at}: 'all' leaves none for {rivals[-1]}; write a number")
        if part.speakers == "rest" and later:
            raise ValueError(f"{at}: only the last part can take the 'rest', and {later[-1]} stands after it")


def _share_speakers(first: SpeakersPart, second: SpeakersPart) -> bool:
    """Return whether a speaker may fit both of two parts."""
    if (first.folder, first.name) != (second.folder, second.name):
        return False
    if first.ages is None or second.ages is None:
        return True
    return first.ages[0] <= second.ages[1] and second.ages[0] <= first.ages[1]


def check_columns(scale: Scale, *, known: Collection[str], where: str) -> None:
    """Check that the columns of a scale are printed in some paper.

    Raises:
        ValueError: naming the nearest column.
    """
    for column in scale.columns:
        check_known(column, known, f"{where}: columns", "column of a paper's table")


def check_sets(study: Study, *, scale: Scale, where: str, scale_where: str) -> None:
    """Check the names of sets that runs ask for, and that the scale does not misspell those of the study.

    Raises:
        ValueError: naming the nearest right word.
    """
    for name, run in study.runs.items():
        for audio in run.audio:
            known = (*NO_SET, *study.sets)
            check_known(audio, known, f"{where}: runs.{name}.audio", "kind of speech or set of this study")
    missing = [name for name in study.sets if name not in scale.corpus.sets]
    for name, part in scale.corpus.parts.items():
        for part_set in part.sets:
            meant = difflib.get_close_matches(part_set, missing, n=1, cutoff=0.8)
            if meant and part_set not in study.sets:
                at = f"{scale_where}: corpus.parts.{name}.{'part_set' if part.part_set else 'also_in'}"
                raise ValueError(f"{at}: '{part_set}' is no set of this study; did you mean '{meant[0]}'?")


def check_use_of_parts(study: Study, *, scale: Scale, where: str) -> None:
    """Check that runs have speech to learn from and to be scored on, and claims compare what was scored.

    Raises:
        ValueError: naming the run or claim and what it lacks.
    """
    tests = {name: set(scored_parts(run, scale)) & set(scale.conditions.values()) for name, run in study.runs.items()}
    for name, run in study.runs.items():
        at, sets = f"{where}: runs.{name}.audio", named_sets(run)
        labelled, unlabelled = training_parts(run, scale)
        if not labelled and not unlabelled:
            raise ValueError(f"{at}: no part of {', '.join(run.audio)} is for training; name a set that has one")
        if run.recogniser == "transducer" and run.teacher is None and unlabelled:
            raise ValueError(f"{at}: nobody transcribes '{unlabelled[0]}' for a supervised run; leave its set out")
        _check_rehearsal(run, scale=scale, at=f"{where}: runs.{name}.rehearsal")
        if sets and not is_start(run, scale) and not _has_tests(sets, scale=scale):
            raise ValueError(f"{at}: of {', '.join(sets)} no part has use: test, so the run cannot be judged; add one")
    for name, claim in study.claims.items():
        for condition, comparison in claim.compared():
            for side in (comparison.left, comparison.right):
                run = side.partition("@")[0]
                if scale.conditions[condition] not in tests[run]:
                    raise ValueError(
                        f"{where}: claims.{name}: '{run}' is not scored on {scale.conditions[condition]}, which is "
                        f"speech of the condition '{condition}'; let it ask for the set, or name another condition"
                    )


def _check_rehearsal(run: AnyRun, *, scale: Scale, at: str) -> None:
    """Check that what a run goes on hearing is there, has transcripts, and is in memory."""
    if not rehearsed_sets(run):
        return
    asked = ", ".join(rehearsed_sets(run))
    parts = rehearsed_parts(run, scale)
    if not parts:
        raise ValueError(f"{at}.audio: no part of the corpus is of {asked}; name a set that has one")
    for part in parts:
        if (use := scale.corpus.parts[part].use) != "labelled":
            raise ValueError(f"{at}.audio: '{part}' of {asked} has use: {use}, not labelled; name another set")
    if scale.corpus.shard_utterances is not None:
        raise ValueError(f"{at}: speech in shards is heard in their order and none beside it; leave it out")


def _has_tests(sets: Collection[str], *, scale: Scale) -> bool:
    """Return whether some test part is of one of these sets, or the sets hold none but parts that have no set."""
    parts = [part for part in scale.corpus.parts.values() if not set(sets).isdisjoint(part.sets)]
    return all(part.part_set is None for part in parts) or any(part.use == "test" for part in parts)
