"""The table of initial encoders: one run pre-trains an encoder, from which another starts, and which hears no test."""

import re
from pathlib import Path

import pytest

from conftest import planned_jobs, snakemake

pytestmark = pytest.mark.workflow

CHOICE = ("scale=smoke", "studies=[soft_vs_hard]", "seeds=[3]", "--", "table9")
RUNS = "work/smoke/soft_vs_hard"
TRAINED = {"teacher", "large_supervised", "self_soft", "self_soft_pretrained"}


def test_table_9_pre_trains_an_encoder_and_transcribes_with_all_but_that(copied_workflow: Path) -> None:
    jobs = planned_jobs(copied_workflow, *CHOICE)
    assert jobs.count("Pre-train the encoder pretrained (seed 3)") == 1
    for kind in ("Train", "Transcribe dev and test sets with"):
        planned = [job for job in jobs if job.startswith(kind)]
        assert sorted(planned) == sorted(f"{kind} {run} (seed 3)" for run in TRAINED)
    assert [job for job in jobs if job.startswith("Transcribe small")] == ["Transcribe small with teacher (seed 3)"]
    others = planned_jobs(copied_workflow, "scale=smoke", "studies=[soft_vs_hard]")
    assert not [job for job in others if "pretrained" in job]


def test_only_one_student_starts_from_the_encoder_which_needs_neither_tokens_nor_teacher(
    copied_workflow: Path,
) -> None:
    done = snakemake(copied_workflow, *CHOICE, options=("--dry-run", "--printshellcmds"))
    commands = re.findall(r"asr-distill train \S+/(\w+)/seed3/run\.yaml (.*)", done.stdout + done.stderr)
    options = {run: set(re.findall(r"(--\S+) (\S+)", rest)) for run, rest in commands}
    assert options.keys() == TRAINED | {"pretrained"}
    initial = ("--initial", f"{RUNS}/pretrained/seed3/encoder.safetensors")
    assert {run for run, given in options.items() if initial in given} == {"self_soft_pretrained"}
    named = {name for name, _ in options["pretrained"]}
    assert named == {"--corpus", "--output", "--processes", "--nodes", "--threads", "--log"}
    assert ("--tokenizer", "work/smoke/tokenizer.model") in options["teacher"]
