"""Jobs of chains of generations: what each run is trained with, and that the core does without them."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import planned_jobs, snakemake

pytestmark = pytest.mark.workflow

READ = re.compile(r"work/smoke/soft_vs_hard/(\w+)/seed0/(model\.safetensors|pseudo_labels/small\.jsonl)")


def test_each_generation_is_trained_with_the_one_before(copied_workflow: Path) -> None:
    done = snakemake(copied_workflow, "scale=smoke", "studies=[soft_vs_hard]", options=("--dry-run", "generations"))
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
    commands = {run: line for line, run in re.findall(r"(asr-distill train work/\S+/(\w+)/seed0/run\.yaml .*)", said)}
    chains = {
        kind: ["teacher", f"self_{kind}", *(f"{kind}_generation_{number}" for number in (2, 3, 4))]
        for kind in ("hard", "soft")
    }
    assert set(commands) == {run for chain in chains.values() for run in chain}
    for kind, chain in chains.items():
        for teacher, run in pairwise(chain):
            read = READ.findall(commands[run])
            expected = [(teacher, "pseudo_labels/small.jsonl")]
            assert read == ([(teacher, "model.safetensors"), *expected] if kind == "soft" else expected)
    transcribed = set(re.findall(r"Transcribe small with (\w+)", said))
    assert transcribed == {run for chain in chains.values() for run in chain[:-1]}


def test_the_core_trains_no_later_generation(copied_workflow: Path) -> None:
    jobs = planned_jobs(copied_workflow, "scale=smoke", "studies=[soft_vs_hard]")
    assert "Train self_soft (seed 0)" in jobs
    assert not [job for job in jobs if "generation" in job]
    assert [job for job in jobs if job.startswith("Transcribe small")] == ["Transcribe small with teacher (seed 0)"]
