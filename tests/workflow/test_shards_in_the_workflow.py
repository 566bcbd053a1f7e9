"""The workflow with a corpus in shards: prepared, transcribed by three jobs, trained on; other scales know nothing."""

from pathlib import Path

import pytest

from conftest import copy_workflow, planned_jobs, snakemake

pytestmark = pytest.mark.workflow

CONFIG = (
    "scale=smoke",
    "studies=[soft_vs_hard]",
    "overrides={corpus: {shard_utterances: 10}, pseudo_labels: {jobs: 3}}",
)
SCALE = Path("work/smoke")
STUDENT = "work/smoke/soft_vs_hard/small_hard/seed0"


def test_a_student_is_trained_from_shards_that_three_jobs_transcribed(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    target = f"{STUDENT}/model.safetensors"
    built = snakemake(tmp_path, *CONFIG, options=(target,))
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    said = built.stdout + built.stderr
    assert [f"Transcribe block {block} of 3 of small" in said for block in range(4)] == [True, True, True, False]
    part = tmp_path / SCALE / "corpus/small"
    assert len(list((part / "shards").glob("cuts.*.jsonl.gz"))) == 3
    assert not (part / "cuts.jsonl.gz").exists()
    assert (tmp_path / SCALE / "corpus/dev-clean/cuts.jsonl.gz").exists()
    labels = tmp_path / "work/smoke/soft_vs_hard/teacher/seed0/pseudo_labels"
    assert labels.joinpath("small.jsonl").read_text().count("\n") == 24
    assert not list(labels.glob("small/*.jsonl"))
    again = snakemake(tmp_path, *CONFIG, options=(target,))
    assert "Nothing to be done" in again.stdout + again.stderr


def test_without_shards_records_are_as_before(copied_workflow: Path) -> None:
    planned = planned_jobs(copied_workflow, "scale=smoke", "studies=[soft_vs_hard]")
    assert "Transcribe small with teacher (seed 0)" in planned
    assert not [job for job in planned if "block" in job]
    for name in ("corpus.yaml", "decoding.yaml"):
        text = (copied_workflow / SCALE / name).read_text(encoding="utf-8")
        assert "shard_utterances" not in text
        assert "jobs" not in text
