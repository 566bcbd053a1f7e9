"""What a dry run says of the time that its jobs would take."""

import json
from pathlib import Path

import pytest

from conftest import copy_workflow, snakemake

pytestmark = pytest.mark.workflow

WORK = "work/smoke/soft_vs_hard"


def write_benchmark(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:00\t10\n")


def rows(said: str) -> dict[str, list[str]]:
    """Return the table of costs, by rule."""
    lines = said[said.index("Time of these jobs") :].splitlines()[2:]
    return {line.split()[0]: line.split()[1:] for line in lines if line[:1].islower()}


def test_a_dry_run_tells_what_the_run_would_cost(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    # Small students are trained by one rule, the teacher by another.
    write_benchmark(tmp_path / f"{WORK}/small_hard/seed0/train.tsv", 3000)
    write_benchmark(tmp_path / "work/smoke/synthesize.tsv", 60)
    published = tmp_path / "results/published/smoke/soft_vs_hard/core/provenance.json"
    published.parent.mkdir(parents=True)
    published.write_text(json.dumps({"jobs": {"soft_vs_hard/teacher/seed0/train": {"seconds": 1200}}}))
    config = ("scale=smoke", "studies=[soft_vs_hard]")
    plain = snakemake(tmp_path, *config, options=("--dry-run",))
    assert plain.returncode == 0, plain.stderr[-2000:]
    said = plain.stdout + plain.stderr
    assert said.count("Time of these jobs") == 1
    assert said.index("Time of these jobs") > said.rindex("\nJob ")
    found = rows(said)
    jobs, recorded, estimated, unknown, *time = found["train"]
    assert (recorded, unknown) == ("1", "0")
    assert int(jobs) == 1 + int(estimated) >= 2
    assert time == [f"{int(jobs) * 3000 / 3600:.1f}", "h"]
    assert found["synthesize"] == ["1", "1", "0", "0", "60", "s"]
    assert found["train_teacher"][1:] == [
        "1",
        str(int(found["train_teacher"][0]) - 1),
        "0",
        *found["train_teacher"][-2:],
    ]
    assert found["decode"][2:] == ["0", found["decode"][0], "?"]
    # synthesis, teacher, then students on two cores
    assert "Together on 2 cores: about " in said
    quiet = snakemake(tmp_path, *config, options=("--dry-run", "--quiet"))
    assert rows(quiet.stdout + quiet.stderr) == found
    assert "Job stats" not in quiet.stdout + quiet.stderr


def test_nothing_to_be_done_costs_nothing(copied_workflow: Path) -> None:
    done = snakemake(copied_workflow, "scale=smoke", options=("--dry-run", "work/smoke/corpus.yaml"))
    assert "Time of these jobs" not in done.stdout + done.stderr


def test_a_broken_record_is_one_line(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    path = tmp_path / "work/smoke/synthesize.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("what\tis\tthis\n1\t2\t3\n")
    done = snakemake(tmp_path, "scale=smoke", options=("--dry-run", "--quiet"))
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "synthesize.tsv: is no benchmark file of Snakemake" in errors[0]
    assert done.returncode == 0
