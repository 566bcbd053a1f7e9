"""Cross-checks between and within records: every reference must lead somewhere, before any job starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asr_distill.experiment.base import nearest
from asr_distill.experiment.corpora import ManifestPart
from asr_distill.experiment.runs import CTCRun, Run
from asr_distill.experiment.scale import Scale
from asr_distill.experiment.study import Study, searches, systems

RESERVED = {"core", "complete", "corpus", "samples", "language_models"}
"""Names of selections and of tables that are not a study's own."""


def check_scale(scale: Scale, *, where: str) -> None:
    """Check a scale on its own.

    Raises:
        ValueError: naming the key, what was found and the nearest right word.
    """
    for use in ("labelled", "dev", "test"):
        if not scale.parts(use):
            raise ValueError(f"{where}: corpus.parts: none has use: {use}; training needs one")
    for column, part in scale.columns.items():
        _known(part, scale.parts("dev") + scale.parts("test"), f"{where}: columns.{column}", "part for dev or test")
    for condition, part in scale.conditions.items():
        _known(part, scale.parts("test"), f"{where}: conditions.{condition}", "part for test")
    if 1.0 not in scale.features.speed_perturbation:
        raise ValueError(f"{where}: features.speed_perturbation: the speed 1.0 must be among the speeds")
    if scale.corpus.min_duration >= scale.corpus.max_duration:
        raise ValueError(f"{where}: corpus.min_duration: {scale.corpus.min_duration} is not below max_duration")
    for name, augmentation in scale.augmentations.items():
        if augmentation.frequency_masks and augmentation.frequency_mask_width >= scale.features.mel_bins:
            raise ValueError(
                f"{where}: augmentations.{name}.frequency_mask_width: {augmentation.frequency_mask_width} "
                f"hides all {scale.features.mel_bins} mel bins; write less"
            )
    _check_shared_manifests(scale, where=where)


def check_study(study: Study, *, scale: Scale, printed: dict[str, Any], where: str, scale_name: str) -> None:
    """Check a study's references to itself, to the scale and to the paper.

    Raises:
        ValueError: naming the key, what was found and the nearest right word.
    """
    for name, run in study.runs.items():
        at = f"{where}: runs.{name}"
        of_scale = f"in the scale '{scale_name}'"
        models = scale.ctc_models if run.recogniser == "ctc" else scale.models
        _known(run.model, models, f"{at}.model", f"model role {of_scale}")
        if run.recogniser == "ctc":
            _check_ctc(run, scale=scale, at=at, of_scale=of_scale)
        _known(run.phase, scale.phases, f"{at}.phase", f"phase {of_scale}")
        _known(run.augmentation, scale.augmentations, f"{at}.augmentation", f"augmentation {of_scale}")
        if run.recogniser == "transducer":
            _check_changes(run, scale=scale, at=at, of_scale=of_scale)
        if run.teacher is not None:
            _known(run.teacher, study.runs, f"{at}.teacher", "run of this study")
        if "unlabelled" in run.audio and not scale.parts("unlabelled"):
            raise ValueError(f"{at}.audio: the scale '{scale_name}' has no unlabelled part; write audio: [labelled]")
    for name, run in study.runs.items():
        _check_teacher(study, name, run, scale=scale, where=f"{where}: runs.{name}")
    _check_tables(study, scale=scale, printed=printed, where=where)
    known = systems(study, scale)
    searched = {search for run in study.runs.values() for search in searches(run, scale)}
    for name, claim in study.claims.items():
        for condition in claim.conditions:
            _known(condition, scale.conditions, f"{where}: claims.{name}.conditions", f"condition of '{scale_name}'")
        for comparison in claim.comparisons:
            for side in (comparison.left, comparison.right):
                _known(side, known, f"{where}: claims.{name}.comparisons", "run of this study")
        for search in sorted(claim.searches()):
            _known(search, searched, f"{where}: claims.{name}.speed", "search of this study")
    for title, runs in study.figures.items():
        for run in runs:
            _known(run, study.runs, f"{where}: figures.{title}", "run of this study")
    _check_utterances(study, scale=scale, where=where, scale_name=scale_name)


def _check_utterances(study: Study, *, scale: Scale, where: str, scale_name: str) -> None:
    """Check what is shown of single utterances: the lattice figure, decoded samples, BERT's knowledge."""
    for name, part in (("lattice", study.lattice), ("samples", study.samples), ("knowledge", study.knowledge)):
        if part is None:
            continue
        _known(part.condition, scale.conditions, f"{where}: {name}.condition", f"condition of '{scale_name}'")
        if name != "lattice" and scale.language_models is None:
            raise ValueError(
                f"{where}: {name}: shows BERT, but there are no language_models in the scale '{scale_name}'; remove it"
            )
    if study.lattice is not None:
        for run in study.lattice.runs:
            _known(run, study.runs, f"{where}: lattice.runs", "run of this study")
    if study.samples is not None:
        known = systems(study, scale)
        for key, chosen in (("systems", study.samples.systems.values()), ("compared", study.samples.compared)):
            for system in chosen:
                _known(system, known, f"{where}: samples.{key}", "run of this study")
    if study.knowledge is not None:
        decoders = [name for name, run in study.runs.items() if run.recogniser == "ctc" and run.decoder_transcribes]
        for run in study.knowledge.runs:
            _known(run, decoders, f"{where}: knowledge.runs", "run of this study with an attention decoder")


def _check_changes(run: Run, *, scale: Scale, at: str, of_scale: str) -> None:
    """Check what a run changes of the scale's choices."""
    if run.teacher_augmentation != "none":
        _known(run.teacher_augmentation, scale.augmentations, f"{at}.teacher_augmentation", f"augmentation {of_scale}")
    shortest = 1000 * scale.corpus.min_duration
    if run.teacher_shift_ms >= shortest:
        raise ValueError(
            f"{at}.teacher_shift_ms: {run.teacher_shift_ms:g} is no less than the shortest utterance that "
            f"corpus.min_duration allows, {shortest:g} ms, {of_scale}; write less, or leave such utterances out"
        )
    phase = scale.phases[run.phase]
    if phase.warmup_steps >= round(run.steps_factor * phase.steps):
        raise ValueError(
            f"{at}.steps_factor: {run.steps_factor} leaves {round(run.steps_factor * phase.steps)} steps, which the "
            f"warm-up of the phase '{run.phase}' ({phase.warmup_steps}) would not survive {of_scale}; write more"
        )


def _check_ctc(run: CTCRun, *, scale: Scale, at: str, of_scale: str) -> None:
    """Check that the scale has what a CTC run learns from."""
    size, language_models = scale.ctc_models[run.model], scale.language_models
    if run.decoder != "none" and size.decoder is None:
        raise ValueError(f"{at}.decoder: the model role '{run.model}' has no attention decoder {of_scale}")
    if not run.intermediate < size.encoder.layers:
        raise ValueError(
            f"{at}.intermediate: {run.intermediate} layers below the final one; '{run.model}' has "
            f"{size.encoder.layers - 1} {of_scale}"
        )
    if language_models is None:
        raise ValueError(f"{at}: there are no language_models {of_scale}; CTC recognisers are decoded with an n-gram")
    learnt = run.from_bert
    if learnt is not None and learnt.top_k > language_models.soft_label_top_k:
        raise ValueError(
            f"{at}: wants BERT's top {learnt.top_k}, but language_models.soft_label_top_k is "
            f"{language_models.soft_label_top_k} {of_scale}"
        )


def _check_teacher(study: Study, name: str, run: Run, *, scale: Scale, where: str) -> None:
    """Follow the chain of teachers to its end; compare frame rates where lattices are compared."""
    seen = [name]
    teacher = run.teacher
    while teacher is not None:
        if teacher in seen:
            raise ValueError(f"{where}.teacher: runs teach each other in a circle: {' <- '.join([*seen, teacher])}")
        seen.append(teacher)
        teacher = study.runs[teacher].teacher
    if run.teacher is None or run.targets == "hard":
        return
    dims = [scale.models[study.runs[r].model].encoder.dim for r in (name, run.teacher)]
    if run.consistency and dims[0] != dims[1]:
        raise ValueError(
            f"{where}.consistency: '{run.teacher}' has encoder states of {dims[1]} dimensions and '{name}' of "
            f"{dims[0]}; only equal ones can be compared"
        )
    own, its = (scale.models[study.runs[r].model].encoder.stack for r in (name, run.teacher))
    if own != its:
        raise ValueError(
            f"{where}.teacher: '{run.teacher}' stacks {its} frames and '{name}' {own}: {run.targets} targets compare "
            "lattices frame by frame, so both need the same encoder.stack"
        )


def _check_tables(study: Study, *, scale: Scale, printed: dict[str, Any], where: str) -> None:
    if "tables" not in printed:
        raise ValueError(f"config/papers/{study.paper}.yaml: has no key 'tables'")
    if not any(table.core for table in study.tables.values()):
        raise ValueError(f"{where}: tables: none is core, so nothing would be built by default; leave core away in one")
    for name in RESERVED.intersection(study.tables):
        raise ValueError(f"{where}: tables.{name}: the name is taken by what every study has; choose another")
    for name, table in study.tables.items():
        at = f"{where}: tables.{name}"
        _known(table.printed, printed["tables"], f"{at}.printed", "table of the paper")
        for row in table.rows:
            if row.run is not None:
                _known(row.run, systems(study, scale), f"{at}.rows", "run of this study")
            if row.printed is not None:
                rows = printed["tables"][table.printed]
                name, _, decoder = row.printed.partition("@")
                _known(name, rows, f"{at}.rows", "row of the printed table")
                if isinstance(rows[name], dict):
                    _known(decoder or "greedy", rows[name], f"{at}.rows", "way of decoding in the printed table")


def _check_shared_manifests(scale: Scale, *, where: str) -> None:
    """Parts cut from one manifest must not share speakers."""
    users: dict[tuple[str, str], list[tuple[str, ManifestPart]]] = {}
    for name, part in scale.corpus.parts.items():
        if isinstance(part, ManifestPart):
            users.setdefault((part.folder, part.name), []).append((name, part))
    for parts in users.values():
        whole = [name for name, part in parts if part.speakers == "all"]
        rest = [name for name, part in parts if part.speakers == "rest"]
        if whole and len(parts) > 1:
            raise ValueError(
                f"{where}: corpus.parts.{whole[0]}.speakers: 'all' leaves none for {parts[-1][0]}; write a number"
            )
        if len(rest) > 1 or (rest and parts[-1][0] != rest[0]):
            raise ValueError(f"{where}: corpus.parts.{rest[0]}.speakers: only the last part can take the 'rest'")


def _known(word: str, known: Iterable[str], where: str, what: str) -> None:
    if word not in known:
        raise ValueError(f"{where}: '{word}' is no {what}{nearest(word, known)}")
