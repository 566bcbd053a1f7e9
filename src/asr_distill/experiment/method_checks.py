"""Checks of how methods are compared beyond the paper's tables: emission latency, delays, verdicts, weak teachers."""

from __future__ import annotations

from asr_distill.experiment.base import check_known
from asr_distill.experiment.scale import Scale
from asr_distill.experiment.study import Study, Table


def check_methods(study: Study, *, scale: Scale, where: str) -> None:
    """Check a study's references to itself in what compares methods.

    Raises:
        ValueError: naming the key, what was found and the nearest right word.
    """
    transducers = {name: run for name, run in study.runs.items() if run.recogniser == "transducer"}
    streaming = [name for name, run in transducers.items() if scale.models[run.model].encoder.streaming]
    if study.aligned_by is not None:
        others = [name for name in transducers if name not in streaming]
        check_known(study.aligned_by, others, f"{where}: aligned_by", "bi-directional transducer of this study")
    for name, table in study.tables.items():
        at = f"{where}: tables.{name}"
        if table.latency and study.aligned_by is None:
            raise ValueError(f"{at}.latency: nothing aligns the references; write aligned_by: <run>")
        _check_verdicts(table, at=at)
    _check_sweep(study, streaming=streaming, where=where)
    _check_weak_teachers(study, where=where)


def _check_verdicts(table: Table, *, at: str) -> None:
    """Check that the runs of an order and those that challenge it stand in the table, in one group of its rows."""
    if table.verdicts is None:
        return
    groups = {row.run: row.group for row in table.rows if row.run is not None}
    asked = (*table.verdicts.order, *table.verdicts.challengers)
    for run in asked:
        check_known(run, groups, f"{at}.verdicts", "run of this table")
    found = dict.fromkeys(groups[run] for run in asked)
    if len(found) > 1 or "" in found:
        named = ", ".join(f"'{group}'" for group in found)
        raise ValueError(f"{at}.verdicts: about rows of the groups {named}; name runs whose rows have one group")


def _check_sweep(study: Study, *, streaming: list[str], where: str) -> None:
    """Check that a sweep's runs stream, and stand in the order of their teachers' delays."""
    if study.shift_sweep is None:
        return
    for run in (*study.shift_sweep.runs, *study.shift_sweep.others):
        check_known(run, streaming, f"{where}: shift_sweep", "streaming transducer of this study")
    shifts = [study.runs[run].teacher_shift_ms for run in study.shift_sweep.runs]
    if shifts != sorted(set(shifts)):
        found = ", ".join(f"{shift:g}" for shift in shifts)
        raise ValueError(f"{where}: shift_sweep.runs: delay their teacher by {found} ms; write them from least to most")


def _check_weak_teachers(study: Study, *, where: str) -> None:
    """Check that all students have a teacher, and no two the same one and the same kind of target."""
    if study.weak_teachers is None:
        return
    at, seen = f"{where}: weak_teachers", {}
    check_known(study.weak_teachers.supervised, study.recognisers, f"{at}.supervised", "run of this study")
    for name in study.weak_teachers.students:
        check_known(name, study.recognisers, f"{at}.students", "run of this study")
        run = study.runs[name]
        if run.teacher is None:
            raise ValueError(f"{at}.students: '{name}' has no teacher; leave it out")
        other = seen.setdefault((run.teacher, run.targets), name)
        if other != name:
            raise ValueError(
                f"{at}.students: '{other}' and '{name}' both learn {run.targets} targets of '{run.teacher}'; keep one"
            )
