"""What the tables beyond the paper plan: one alignment, times of words where they are shown, none in the core."""

from pathlib import Path

import pytest
import yaml

from conftest import planned_jobs, snakemake

pytestmark = pytest.mark.workflow

CHOICE = ("scale=smoke", "studies=[soft_vs_hard]", "seeds=[0,1]")
ALIGN = "Align the transcripts of the test sets with teacher (seed {})"


def jobs_of(folder: Path, table: str) -> str:
    done = snakemake(folder, *CHOICE, options=("--dry-run", table))
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("table", ["which_distillation", "shift_sweep"])
def test_latency_is_measured_where_a_table_shows_it(copied_workflow: Path, table: str) -> None:
    said = jobs_of(copied_workflow, table)
    record = yaml.safe_load((copied_workflow / f"work/smoke/soft_vs_hard/report/{table}/study.yaml").read_text())
    for seed in (0, 1):
        assert ALIGN.format(seed) in said
    measured = f"results/smoke/soft_vs_hard/{table}/latency.csv"
    commands = [line.split() for line in said.splitlines() if line.strip().startswith("Shell command: asr-distill")]
    (latency,) = [words for words in commands if words[3] == "latency"]
    assert measured in latency
    reading = {words[3] for words in commands if f"--latency {measured}" in " ".join(words)}
    assert reading == {"tables", "figures", "report"}
    for run in record["study"]["runs"]:
        wanted = f"work/smoke/soft_vs_hard/{run}/seed0/emissions.jsonl" in said
        assert wanted == run.startswith("streaming_"), run


def test_weak_teachers_and_the_core_need_none(copied_workflow: Path) -> None:
    said = jobs_of(copied_workflow, "weak_teachers")
    assert "Train teacher_weak (seed 0)" in said
    assert "Align" not in said
    assert not [job for job in planned_jobs(copied_workflow, *CHOICE) if job.startswith(("Align", "Measure"))]
