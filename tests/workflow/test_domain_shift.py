"""Domain shift: parts of sets are made for the table that asks for them, and for nothing else."""

import re
from pathlib import Path

import pytest

from conftest import copy_workflow, planned_jobs, snakemake

pytestmark = pytest.mark.workflow

CHOICE = ("scale=smoke", "studies=[soft_vs_hard]", "seeds=[3]")
SETS = ("domains", "domains_old", "domains_new")
OLD, NEW = {"commands-old", "stories-old", "news"}, {"commands-new", "stories-new", "news"}
TESTS = {"test-commands", "test-stories", "test-news"}
STUDENTS = {"md_hard": OLD, "md_soft": OLD, "md_new_hard": NEW, "md_new_soft": NEW}


def test_the_core_makes_no_part_of_a_set(copied_workflow: Path) -> None:
    jobs = planned_jobs(copied_workflow, *CHOICE)
    made = {job.removeprefix("Check and prepare ") for job in jobs if job.startswith("Check and prepare ")}
    assert made == {"train-clean", "small", "dev-clean", "dev-other", "test-clean", "test-other"}
    assert [job for job in jobs if job.startswith("Synthesise")] == ["Synthesise the embedded corpus"]
    assert "List the parts of the corpus" in jobs
    assert not [job for job in jobs if "domain" in job or "md_" in job or "old_teacher" in job]


def test_table_7_makes_its_sets_and_transcribes_labelled_speech_for_its_students(copied_workflow: Path) -> None:
    jobs = planned_jobs(copied_workflow, *CHOICE, "--", "table7")
    assert {job for job in jobs if job.startswith("Synthesise")} == {
        "Synthesise the embedded corpus",
        *(f"Synthesise the set {name}" for name in SETS),
    }
    made = {job.removeprefix("Check and prepare ") for job in jobs if job.startswith("Check and prepare ")}
    assert made > OLD | NEW | TESTS
    transcribed = [job for job in jobs if job.endswith(" with old_teacher (seed 3)")]
    assert sorted(transcribed) == sorted(
        f"Transcribe {part} with old_teacher (seed 3)" for part in (*OLD, *NEW - OLD, "dev and test sets")
    )
    trained = {job for job in jobs if job.startswith("Train ")}
    assert trained == {f"Train {run} (seed 3)" for run in ("old_teacher", *STUDENTS)}


def test_students_are_given_the_teachers_transcripts_of_all_they_hear(copied_workflow: Path) -> None:
    done = snakemake(copied_workflow, *CHOICE, "--", "table7", options=("--dry-run", "--printshellcmds"))
    said = done.stdout + done.stderr
    trained = dict(re.findall(r"asr-distill train \S+/(\w+)/seed3/run\.yaml (.*)", said))
    for run, heard in STUDENTS.items():
        given = re.findall(r"--pseudo-labels \S+/old_teacher/seed3/pseudo_labels/(\S+)\.jsonl", trained[run])
        assert sorted(given) == sorted(heard)
    decoded = dict(re.findall(r"asr-distill decode \S+/(\w+)/seed3/model\.safetensors (.*)", said))
    assert decoded.keys() == {"old_teacher", *STUDENTS}
    for options in decoded.values():
        assert set(re.findall(r"--part (\S+)", options)) > TESTS


def test_a_domain_without_a_test_part_is_one_line(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    path = tmp_path / "config/scales/smoke.yaml"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.lstrip().startswith("test-stories:")))
    done = snakemake(tmp_path, *CHOICE)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1
    assert len(errors) == 1
    assert "config/scales/smoke.yaml: columns.medium_form: 'test-stories' is no part for dev or test" in errors[0]
    assert not (tmp_path / "work").exists()


def test_a_scale_without_the_sets_does_not_offer_the_table(copied_workflow: Path) -> None:
    done = snakemake(copied_workflow, "scale=an4", "data=nowhere", "--", "table7", options=("--dry-run",))
    assert done.returncode == 1
    assert "MissingRuleException" in done.stdout + done.stderr
