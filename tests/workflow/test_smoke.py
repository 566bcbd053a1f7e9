"""The whole workflow at the smoke scale: it runs, does nothing twice, reruns only what it must, refuses bad config."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from asr_distill.cli import app
from conftest import copy_workflow, planned_jobs, snakemake

pytestmark = pytest.mark.workflow

STUDY = "results/smoke/soft_vs_hard/core"


def test_everything_is_built(smoke_run: Path) -> None:
    record = yaml.safe_load((smoke_run / "work/smoke/soft_vs_hard/report/core/study.yaml").read_text())
    study = record["study"]
    assert list(study["tables"]) == ["table4", "table5", "table6"]
    scores = pd.read_csv(smoke_run / STUDY / "scores.csv")
    assert set(scores["run"]) == set(study["runs"])
    assert set(scores["part"]) == {"dev-clean", "dev-other", "test-clean", "test-other"}
    for table in study["tables"]:
        frame = pd.read_csv(smoke_run / STUDY / f"tables/{table}.csv")
        assert len(frame) == len(study["tables"][table]["rows"])
    claims = pd.read_csv(smoke_run / STUDY / "claims.csv")
    assert set(claims["claim"]) == {*study["claims"], *record["undecided"]}
    assert "<table" in (smoke_run / STUDY / "report.html").read_text(encoding="utf-8")
    jobs = json.loads((smoke_run / STUDY / "provenance.json").read_text())["jobs"]
    assert sum("train.tsv" in job or "/train" in job for job in jobs) >= len(study["runs"])


def test_no_checkpoint_is_left_behind(smoke_run: Path) -> None:
    assert not list(smoke_run.glob("work/**/state/*"))


def test_a_second_call_does_nothing(smoke_run: Path) -> None:
    done = snakemake(smoke_run, "scale=smoke")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_an_edited_run_reruns_itself_and_what_depends_on_it(smoke_run: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke_run, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "config/studies/soft_vs_hard.yaml"
    edited = re.sub(r"(small_hard:.*augmentation:) standard", r"\1 none", path.read_text())
    assert edited != path.read_text()
    moved = {
        job.format(study)
        for job in ("Write down where the results of {}, core, come from", "Write the report of {}, core")
        for study in ("soft_vs_hard", "lm_into_ctc")
    }
    assert set(planned_jobs(tmp_path, "scale=smoke")) <= moved  # they read the state of the folder's repository
    path.write_text(edited)
    jobs = planned_jobs(tmp_path, "scale=smoke")
    assert [job for job in jobs if job.startswith("Train")] == ["Train small_hard (seed 0)"]
    decoded = [job for job in jobs if job.startswith("Transcribe")]
    assert decoded == ["Transcribe dev and test sets with small_hard (seed 0)"]
    assert "Count word errors of soft_vs_hard, core" in jobs
    assert not [job for job in jobs if job.startswith(("Synthesise", "Check", "Estimate"))]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("scale=smokee", "did you mean 'smoke'?"),
        ("studies=[soft_vs_hart]", "did you mean 'soft_vs_hard'?"),
        ("sedes=[1]", "did you mean 'seeds'?"),
        ("overrides={phases: {techer: {steps: 3}}}", "techer"),
        ("overrides={conditions: {clean: test-claen}}", "did you mean 'test-clean'?"),
    ],
)
def test_a_misspelt_name_ends_in_one_line(copied_workflow: Path, config: str, said: str) -> None:
    extra = () if config.startswith("scale") else ("scale=smoke",)
    done = snakemake(copied_workflow, config, *extra)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(errors) == 1
    assert said in errors[0]


def test_a_misspelt_teacher_names_the_nearest_run(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    path = tmp_path / "config/studies/soft_vs_hard.yaml"
    path.write_text(path.read_text().replace("targets: soft, teacher: teacher,", "targets: soft, teacher: techer,", 1))
    done = snakemake(tmp_path, "scale=smoke")
    assert done.returncode == 1
    assert "runs.self_soft.teacher: 'techer' is no run of this study; did you mean 'teacher'?" in done.stderr
    assert not (tmp_path / "work").exists()


def test_a_missing_corpus_is_an_error_that_says_how_to_get_it(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    done = snakemake(tmp_path, "scale=an4", "data=nowhere", options=("--until", "prepare"))
    assert done.returncode == 1
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert errors
    assert all("nowhere/an4" in line and "data" in line for line in errors)


def test_published_results_do_not_keep_a_fresh_clone_from_running(smoke_run: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    published = tmp_path / "results/published"
    arguments = ["publish", "--results", str(smoke_run / "results"), "--published", str(published), "--allow-dirty"]
    assert runner.invoke(app, arguments).exit_code == 0
    assert (published / "smoke/soft_vs_hard/core/tables/table5.csv").is_file()
    assert not list(published.rglob(".snakemake*"))
    copy_workflow(tmp_path)
    assert "Train teacher (seed 0)" in planned_jobs(tmp_path, "scale=smoke")
    compared = runner.invoke(app, ["compare", "--results", str(smoke_run / "results"), "--published", str(published)])
    assert "identical" in compared.output


def test_benchmarks_are_a_target_of_their_own_on_all_cores(copied_workflow: Path) -> None:
    done = snakemake(copied_workflow, options=("--dry-run", "benchmarks"))
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout + done.stderr
    assert re.findall(r"^Job \d+: (.*)$", said, flags=re.MULTILINE) == [
        "Measure losses and training steps beside other toolkits'"
    ]
    assert "python -m benchmarks --output results/benchmarks --threads 2" in said
    assert not [job for job in planned_jobs(copied_workflow, "scale=smoke") if job.startswith("Measure")]


@pytest.mark.browser
def test_snakemake_report_opens_in_a_browser(smoke_run: Path, tmp_path: Path, browser: str) -> None:
    bundle = tmp_path / "report.zip"
    done = snakemake(smoke_run, "scale=smoke", options=("--report", str(bundle)))
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.unpack_archive(bundle, tmp_path)
    page = tmp_path / "report/report.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    shown = subprocess.run([browser, *flags, page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    assert "soft_vs_hard" in shown.stdout
    assert "Knowledge distillation for speech recognition" in shown.stdout
    assert "Uncaught" not in shown.stderr
