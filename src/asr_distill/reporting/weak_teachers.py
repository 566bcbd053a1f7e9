"""What students gain from teachers of different quality: a table of gains, and the figure of gain by teacher."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr_distill.experiment import StudyRecord
from asr_distill.files import write_csv
from asr_distill.reporting import style
from asr_distill.reporting.claims import shown_p
from asr_distill.reporting.comparisons import COLUMNS, compare_family, in_points, pair_notes, part_error_rate
from asr_distill.reporting.grid import Column, Grid, run_name, write_grid
from asr_distill.reporting.inputs import read_errors
from asr_distill.reporting.looks import run_look, shown_parts, target_handles

NAME = "gain_by_teacher"


def write_gains(study: Path, *, errors: Path, output: Path) -> None:
    """Write <output>/gain_by_teacher.csv, .md and .tex for a study with teachers of different quality.

    Args:
        study: the resolved study.yaml.
        errors: errors.csv.
        output: folder of the tables.
    """
    record = StudyRecord.read(study)
    if record.study.weak_teachers is None:
        return
    frame = gains_frame(record, errors=read_errors(errors))
    write_grid(gains_grid(record, frame), folder=output)
    write_csv(gains_path(output), frame)


def gains_path(tables: Path) -> Path:
    """Return the file of the gains, in the folder of the tables."""
    return tables / f"{NAME}.csv"


def gains_frame(study: StudyRecord, *, errors: pd.DataFrame) -> pd.DataFrame:
    """Return a row per part and student, by its teacher's word error rate: teacher, teacher_wer, targets and COLUMNS.

    All cells are text. Left is the student, right the same model trained without a teacher; p-values are corrected for
    all students of a part.
    """
    chosen, rows = study.study.weak_teachers, []
    for part in shown_parts(study):
        pairs = [(student, chosen.supervised) for student in chosen.students]
        found = []
        for row in compare_family(study, pairs, part, errors=errors):
            student = study.study.runs[row["left"]]
            rate = 100 * part_error_rate(errors, student.teacher, part)
            found.append({"teacher": student.teacher, "teacher_wer": f"{rate:.3f}", "targets": student.targets, **row})
        rows += sorted(found, key=lambda row: float(row["teacher_wer"]))
    return pd.DataFrame(rows, columns=["teacher", "teacher_wer", "targets", *COLUMNS])


def gains_grid(study: StudyRecord, frame: pd.DataFrame) -> Grid:
    """Return the gains for people, from their `gains_frame`."""
    rows = tuple(
        (
            row["part"],
            run_name(row["teacher"]),
            f"{float(row['teacher_wer']):.1f}",
            style.TARGET_LABELS[row["targets"]],
            *(f"{float(row[side]):.1f}" for side in ("left_wer", "right_wer")),
            in_points(row, sign=-1),
            row["verdict"],
            *(shown_p(row[key]) for key in ("p_value", "p_holm")),
        )
        for row in frame.to_dict("records")
    )
    left = [Column(label=label, align="left") for label in ("part", "teacher")]
    rates = [Column(label=label, group="WER") for label in ("student", "supervised")]
    return Grid(
        name=NAME,
        title="What a student gains from teachers of different quality",
        caption=(
            f"Scale “{study.scale_name}”. Word error rates in percent. Gain: the word error rate of "
            f"“{study.study.weak_teachers.supervised}”, which has no teacher, minus the student's, in points; above "
            "zero the teacher helps."
        ),
        columns=(
            *left,
            Column(label="teacher's WER"),
            Column(label="student's targets", align="left"),
            *rates,
            Column(label="gain"),
            Column(label="verdict", align="left"),
            *(Column(label=label) for label in ("p", "p (Holm)")),
        ),
        rows=rows,
        notes=(
            "The verdict is on “student < supervised”, corrected, like p, for all students of the part (Holm).",
            *pair_notes(study, frame),
        ),
        deviations=(*study.scale.deviations, *study.study.deviations),
    )


def gain_figure(study: StudyRecord, frame: pd.DataFrame) -> Figure:
    """Draw one panel per part: gain over the supervised student against the teacher's WER, a line per kind of target.

    Args:
        study: the study.
        frame: as `gains_frame` returns it.
    """
    numbers = ["teacher_wer", "difference", "low", "high"]
    values = frame.astype(dict.fromkeys(numbers, float))
    parts = shown_parts(study)
    figure = style.new_figure(height=3.2)
    axes = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    for panel, part in zip(axes, parts, strict=True):
        _draw_panel(panel, study, values[values["part"] == part])
        panel.set_title(part)
        panel.set_xlabel(f"WER of the teacher on {part}, %")
    axes[0].set_ylabel("gain over supervised training, points")
    handles = target_handles(study, study.study.weak_teachers.students)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_panel(panel: Axes, study: StudyRecord, values: pd.DataFrame) -> None:
    """Draw the lines of one part, each a little to the side, so that their intervals do not hide each other."""
    panel.axhline(0, color=style.INK, linewidth=0.6)
    apart = 0.012 * (values["teacher_wer"].max() - values["teacher_wer"].min())
    for place, (_, own) in enumerate(values.groupby("targets", sort=False)):
        look, places = run_look(study, own["left"].iloc[0]), own["teacher_wer"] + (place - 1) * apart
        panel.vlines(places, -own["high"], -own["low"], color=look["color"], linewidth=0.9, alpha=0.6)
        panel.plot(places, -own["difference"], linewidth=1.1, markersize=4.5, **look)
    teachers = values.groupby("teacher", sort=False)["teacher_wer"].first()
    names = panel.secondary_xaxis("top")
    names.set_ticks(teachers.tolist(), [run_name(teacher) for teacher in teachers.index], rotation=15, ha="left")
    names.tick_params(labelsize=6.5, labelcolor="#666666")
    panel.margins(x=0.12)
    panel.grid(axis="y")
