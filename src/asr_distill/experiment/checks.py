"""Cross-checks between and within records: every reference must lead somewhere, before any job starts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from asr_distill.experiment.base import check_known as _known
from asr_distill.experiment.method_checks import check_methods
from asr_distill.experiment.part_checks import check_parts, check_shared_lists, check_use_of_parts
from asr_distill.experiment.printed import printed_place, printed_rows, wer_tables
from asr_distill.experiment.runs import CTCRun, Run, needed_runs
from asr_distill.experiment.scale import Scale
from asr_distill.experiment.study import Study, Table, searches, systems

RESERVED = {"core", "complete", "corpus", "samples", "language_models", "gain_by_teacher"}
"""Names of selections and of tables that are not a study's own."""


def check_scale(scale: Scale, *, where: str) -> None:
    """Check a scale on its own.

    Raises:
        ValueError: naming the key, what was found and the nearest right word.
    """
    for use in ("labelled", "dev", "test"):
        if not scale.parts(use):
            raise ValueError(f"{where}: corpus.parts: none has use: {use}; training needs one")
    check_parts(scale, where=where)
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
    check_shared_lists(scale, where=where)
    if scale.start is not None:
        for name in scale.start.audio:
            _known(name, scale.corpus.sets, f"{where}: start.audio", "set of the corpus' parts")
            for part, values in scale.corpus.parts.items():
                if name in values.sets and values.use != "labelled":
                    raise ValueError(f"{where}: start.audio: '{part}' of '{name}' has use: {values.use}, not labelled")
        _known(scale.start.phase, scale.phases, f"{where}: start.phase", "phase")
        _known(scale.start.augmentation, scale.augmentations, f"{where}: start.augmentation", "augmentation")


def check_listening(study: Study, *, where: str) -> None:
    """Check that the runs exist that one can listen to, before any is left out for want of speech.

    Raises:
        ValueError: naming the nearest run.
    """
    for system in study.listening.systems.values() if study.listening is not None else ():
        _known(system.partition("@")[0], study.runs, f"{where}: listening.systems", "run of this study")


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
        if run.recogniser != "best_rq":
            _known(run.augmentation, scale.augmentations, f"{at}.augmentation", f"augmentation {of_scale}")
        if run.recogniser == "transducer":
            _check_changes(run, scale=scale, at=at, of_scale=of_scale)
            if run.initial is not None:
                _known(run.initial, study.runs, f"{at}.initial", "run of this study")
        if run.teacher is not None:
            _known(run.teacher, study.runs, f"{at}.teacher", "run of this study")
        if "unlabelled" in run.audio and not scale.parts("unlabelled"):
            raise ValueError(f"{at}.audio: the scale '{scale_name}' has no unlabelled part; write audio: [labelled]")
    _check_pretraining(study, where=where)
    for name, run in study.runs.items():
        _check_circle(study, name, where=f"{where}: runs.{name}")
        if run.recogniser == "transducer":
            _check_initial(study, name, run, scale=scale, where=f"{where}: runs.{name}.initial")
            _check_teacher(study, name, run, scale=scale, where=f"{where}: runs.{name}")
    _check_tables(study, scale=scale, printed=printed, where=where)
    known = systems(study, scale)
    searched = {search for run in study.runs.values() for search in searches(run, scale)}
    for name, claim in study.claims.items():
        for condition, _ in claim.compared():
            _known(condition, scale.conditions, f"{where}: claims.{name}.conditions", f"condition of '{scale_name}'")
        for comparison in claim.comparisons:
            for side in (comparison.left, comparison.right):
                _known(side, known, f"{where}: claims.{name}.comparisons", "run of this study")
        for search in sorted(claim.searches()):
            _known(search, searched, f"{where}: claims.{name}.speed", "search of this study")
    check_use_of_parts(study, scale=scale, where=where)
    for title, runs in study.figures.items():
        for run in runs:
            _known(run, study.runs, f"{where}: figures.{title}", "run of this study")
    _check_generations(study, where=where)
    _check_utterances(study, scale=scale, where=where, scale_name=scale_name)
    check_methods(study, scale=scale, where=where)


def _check_utterances(study: Study, *, scale: Scale, where: str, scale_name: str) -> None:
    """Check what is shown of single utterances: the lattice figure, decoded samples, BERT's knowledge."""
    for name, part in (("lattice", study.lattice), ("samples", study.samples), ("knowledge", study.knowledge)):
        if part is None:
            continue
        conditions = scale.restricted(()).conditions  # models of all runs know their parts
        _known(part.condition, conditions, f"{where}: {name}.condition", f"condition of '{scale_name}'")
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
    if study.listening is not None:
        for system in study.listening.systems.values():
            _known(system, systems(study, scale), f"{where}: listening.systems", "run of this study")
    if study.knowledge is not None:
        decoders = [name for name, run in study.runs.items() if run.recogniser == "ctc" and run.decoder_transcribes]
        for run in study.knowledge.runs:
            _known(run, decoders, f"{where}: knowledge.runs", "run of this study with an attention decoder")


def _check_generations(study: Study, *, where: str) -> None:
    """Check that each run of a chain learns from the one before."""
    for name, chain in study.generations.items():
        at = f"{where}: generations.{name}"
        if len(chain) < 3:
            raise ValueError(f"{at}: {len(chain)} runs are no chain; write a teacher and two generations or more")
        for run in chain:
            _known(run, study.runs, at, "run of this study")
        for teacher, run in pairwise(chain):
            if study.runs[run].teacher != teacher:
                raise ValueError(
                    f"{at}: '{run}' stands after '{teacher}', but its teacher is '{study.runs[run].teacher}'; "
                    "name runs in the order in which they teach each other"
                )


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
    if run.labelled_share is not None:
        batch = phase.multiplied(steps=1, batch=run.batch_factor).batch_utterances
        if not 0 < run.labelled_utterances(batch) < batch:
            raise ValueError(
                f"{at}.labelled_share: {run.labelled_share} of {batch} utterances, the batch of the phase "
                f"'{run.phase}' {of_scale}, rounds to none or all; write a share nearer to 0.5"
            )
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


def _check_pretraining(study: Study, *, where: str) -> None:
    """Check that no transcript is wanted of a run that only pre-trains an encoder."""
    wanted = {f"tables.{name}.rows": {row.run for row in table.rows} for name, table in study.tables.items()}
    wanted |= {f"claims.{name}.comparisons": claim.runs() for name, claim in study.claims.items()}
    wanted |= {f"figures.{title}": set(runs) for title, runs in study.figures.items()}
    wanted["lattice.runs"] = set(study.lattice.runs) if study.lattice is not None else set()
    wanted["weak_teachers.supervised"] = {study.weak_teachers.supervised} if study.weak_teachers is not None else set()
    for place, runs in wanted.items():
        for run in sorted(runs & study.runs.keys() - study.recognisers.keys()):
            raise ValueError(f"{where}: {place}: '{run}' pre-trains an encoder and transcribes nothing; leave it out")


def _check_circle(study: Study, name: str, *, where: str) -> None:
    """Follow teachers and initial encoders to their ends."""
    waiting = [[name]]
    while waiting:
        seen = waiting.pop()
        for needed in needed_runs(study.runs[seen[-1]]):
            if needed in seen:
                raise ValueError(f"{where}: runs need each other in a circle: {' <- '.join([*seen, needed])}")
            waiting.append([*seen, needed])


def _check_initial(study: Study, name: str, run: Run, *, scale: Scale, where: str) -> None:
    """Compare the encoder of a run with the one that it starts from."""
    if run.initial is None:
        if run.whole_initial:
            raise ValueError(f"{where}: whole_initial needs a run to start from; name one")
        return
    other = study.runs[run.initial]
    if other.recogniser == "ctc":
        raise ValueError(f"{where}: '{run.initial}' is a CTC recogniser; name a transducer or a run that pre-trains")
    own = scale.models[run.model].with_activation(run.activation).encoder
    activation = other.activation if other.recogniser == "transducer" else None
    its = scale.models[other.model].with_activation(activation).encoder
    found = own.differences(its)
    if found:
        raise ValueError(
            f"{where}: '{run.initial}' has an encoder with {', '.join(found)}; '{name}' can only start from its like"
        )
    if run.whole_initial and other.recogniser != "transducer":
        raise ValueError(f"{where}: '{run.initial}' pre-trains an encoder alone; leave whole_initial out")
    if run.whole_initial and (found := scale.models[run.model].differences(scale.models[other.model])):
        raise ValueError(f"{where}: '{run.initial}' has {', '.join(found)}; leave whole_initial out")


def _check_teacher(study: Study, name: str, run: Run, *, scale: Scale, where: str) -> None:
    """Check that the teacher transcribes; compare frame rates where lattices are compared."""
    if run.teacher is None:
        return
    if study.runs[run.teacher].recogniser != "transducer":
        raise ValueError(f"{where}.teacher: '{run.teacher}' is no transducer; name a run that is one")
    if run.targets == "hard":
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
        if table.printed:
            _known(table.printed, wer_tables(printed), f"{at}.printed", "table of the paper")
        for row in table.rows:
            if row.run is not None:
                _known(row.run, systems(study, scale), f"{at}.rows", "run of this study")
            if row.printed is not None:
                _check_printed_row(table, row.printed, printed=printed, at=at)


def _check_printed_row(table: Table, key: str, *, printed: dict[str, Any], at: str) -> None:
    place, name, choice = printed_place(table, key)
    if not place:
        raise ValueError(f"{at}.rows: '{key}' is a row of no table; write <table>/{key}, or the table's own printed")
    _known(place, wer_tables(printed), f"{at}.rows", "table of the paper")
    rows = printed_rows(printed, place)
    _known(name, rows, f"{at}.rows", "row of the printed table")
    if table.mean:
        _known(choice, wer_tables(printed)[place], f"{at}.rows: '{key}'", "column of the printed table")
    elif isinstance(rows[name], dict) and "wer" not in rows[name]:
        _known(choice or "greedy", rows[name], f"{at}.rows", "way of decoding in the printed table")
