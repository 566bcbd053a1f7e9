"""What compares methods beyond the paper: kept with its runs, checked beforehand, and where the paper prints rows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from asr_distill.experiment import load_experiment, printed_row, read_yaml, timed_runs

ROOT = Path(__file__).parents[3]
NAMED = {"scale": "smoke", "studies": ["soft_vs_hard"]}


@pytest.fixture(scope="module")
def experiment():
    return load_experiment(NAMED, root=ROOT)


@pytest.fixture
def failure(tmp_path):
    """Return a function that sets a value in a copy of a file in config/ and returns the message it ends in."""
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def fail(keys, value, name="studies/soft_vs_hard"):
        path = tmp_path / "config" / f"{name}.yaml"
        values = json.loads(json.dumps(read_yaml(path)))  # each place its own copy
        place = values
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        with pytest.raises(ValueError, match=r"\S") as error:
            load_experiment(NAMED, root=tmp_path)
        assert "\n" not in str(error.value)
        return str(error.value)

    return fail


VERDICTS = ("tables", "which_distillation", "verdicts")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("aligned_by",), "techer", "aligned_by: 'techer' is no bi-directional transducer of this study; did you mean"),
        (("aligned_by",), "streaming_hard", "aligned_by: 'streaming_hard' is no bi-directional transducer"),
        (("aligned_by",), None, "tables.which_distillation.latency: nothing aligns the references; write aligned_by"),
        (("shift_sweep", "runs", 0), "streaming_sft", "shift_sweep: 'streaming_sft' is no streaming transducer"),
        (("shift_sweep", "others", 0), "small_hard", "shift_sweep: 'small_hard' is no streaming transducer"),
        (
            ("shift_sweep", "runs", 0),
            "streaming_shift_480",
            "delay their teacher by 480, 60, 120, 180, 240, 360, 480 ms",
        ),
        (("weak_teachers", "supervised"), "smal_supervised", "weak_teachers.supervised: 'smal_supervised' is no run"),
        (("weak_teachers", "students", 0), "teacher", "weak_teachers.students: 'teacher' has no teacher; leave it out"),
        (
            ("weak_teachers", "students", 0),
            "small_shift",
            "'small_shift' and 'small_soft' both learn soft targets of 'teacher'; keep one",
        ),
        ((*VERDICTS, "order", 0), "streaming_shift_60", "verdicts: 'streaming_shift_60' is no run of this table"),
        (
            (*VERDICTS, "challengers", 0),
            "self_shift",
            "about rows of the groups 'Small streaming', 'Same architecture'",
        ),
        ((*VERDICTS, "order"), ["streaming_hard"], "order, challengers: an order has two runs or more"),
        ((*VERDICTS, "challengers"), [], "order, challengers: an order has two runs or more, and one run or more"),
        (
            ("tables", "which_distillation", "rows", 0, "printed"),
            "b0_teacher",
            "'b0_teacher' is a row of no table; write <table>/b0_teacher",
        ),
        (
            ("tables", "which_distillation", "rows", 0, "printed"),
            "table4_selftraining/b0_teacher",
            "'table4_selftraining' is no table of the paper; did you mean 'table4_self_training'?",
        ),
        (
            ("tables", "which_distillation", "rows", 0, "printed"),
            "table4_self_training/b0",
            "'b0' is no row of the printed table",
        ),
    ],
)
def test_references_that_lead_nowhere(failure, keys, value, message):
    assert message in failure(keys, value)


def test_the_name_of_the_table_of_gains_is_taken(failure):
    table = read_yaml(ROOT / "config/studies/soft_vs_hard.yaml")["tables"]["weak_teachers"]
    assert "tables.gain_by_teacher: the name is taken" in failure(("tables", "gain_by_teacher"), table)


def test_a_row_may_stand_in_another_printed_table(experiment):
    study, printed = experiment.studies["soft_vs_hard"], experiment.printed["soft_vs_hard"]
    table = study.tables["which_distillation"]
    shown = {row.run: row.printed for row in table.rows}
    assert printed_row(printed, table, shown["streaming_hard"])["test_other"] == 8.6
    assert printed_row(printed, table, shown["large_supervised"])["test_other"] == 6.2
    assert shown["streaming_full_sum"] is None


def test_every_student_is_asked_by_every_method(experiment):
    rows = experiment.studies["soft_vs_hard"].tables["which_distillation"].rows
    methods = {}
    for row in rows[1:]:
        methods.setdefault(row.group, []).append(row.label)
    first, second, third = methods.values()
    assert first == second == third
    assert len(first) == len(set(first)) == 10


def test_the_core_measures_no_latency_and_is_as_it_was(experiment):
    core = experiment.record("soft_vs_hard", "core")
    assert not core.study.measures_latency
    assert core.timed_runs == ()
    assert (core.study.shift_sweep, core.study.weak_teachers) == (None, None)


def test_parts_keep_what_their_runs_can_show(experiment):
    whole = experiment.studies["soft_vs_hard"]
    sweep = experiment.record("soft_vs_hard", "shift_sweep")
    assert sweep.study.shift_sweep.runs == whole.shift_sweep.runs
    assert sweep.study.shift_sweep.others == ("streaming_hard", "streaming_supervised")
    assert len(sweep.timed_runs) == 9
    assert whole.aligned_by in sweep.study.runs
    assert {"C1", "C2"} <= sweep.study.claims.keys()
    few = experiment.record("soft_vs_hard", "which_distillation").study
    assert few.shift_sweep.runs == ("streaming_soft", "streaming_shift")
    assert len(few.shift_sweep.others) == 8
    assert experiment.record("soft_vs_hard", "table6").study.shift_sweep is None
    weak = experiment.record("soft_vs_hard", "weak_teachers").study
    assert weak.weak_teachers == whole.weak_teachers
    assert {weak.runs[run].teacher for run in weak.weak_teachers.students} == {
        "teacher",
        "teacher_middling",
        "teacher_weak",
    }
    complete = experiment.record("soft_vs_hard", "complete").study
    assert (complete.shift_sweep, complete.weak_teachers) == (whole.shift_sweep, whole.weak_teachers)


def test_the_run_that_aligns_is_kept_where_no_row_names_it(experiment):
    whole = experiment.studies["soft_vs_hard"]
    table = whole.tables["shift_sweep"]
    rows = tuple(row for row in table.rows if row.run == "streaming_supervised")
    tables = {late: table.model_copy(update={"rows": rows, "latency": late == "late"}) for late in ("late", "plain")}
    study = whole.model_copy(update={"tables": tables})
    assert set(study.restricted(["late"]).runs) == {"streaming_supervised", "teacher"}
    assert set(study.restricted(["plain"]).runs) == {"streaming_supervised"}


def test_delays_are_shown_in_whole_encoder_frames(experiment):
    record = experiment.record("soft_vs_hard", "shift_sweep")
    shown = [record.teacher_shift_ms(run) for run in record.study.shift_sweep.runs]
    assert shown == [0, 80, 160, 160, 240, 320, 480]  # frames of 80 ms; 4.5 of them are 4
    for run, shift in zip(record.study.shift_sweep.runs, shown, strict=True):
        assert experiment.run("soft_vs_hard", run, seed=0).teacher_shift * 80 == shift


def test_beam_search_tells_no_times(experiment):
    study, scale = experiment.studies["soft_vs_hard"], experiment.scale
    assert set(timed_runs(study, scale)) == {name for name in study.runs if name.startswith("streaming_")}
    beam = scale.model_copy(update={"decoding": scale.decoding.model_copy(update={"method": "beam"})})
    assert timed_runs(study, beam) == ()
