"""What happens to a run that is killed again and again, and to one that is started twice."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import copy_workflow, snakemake, with_commands

pytestmark = pytest.mark.workflow

STUDY = "soft_vs_hard"
KILLS = 20
FOLDERS = (("results", "core/tables"), ("work", "report/core"))
TABLES = ("scores.csv", "claims.csv", "claims.md", "tables/table4.csv", "tables/table5.csv", "tables/table6.csv")


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start Snakemake in a process group of its own, with its output in snakemake.log."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "scale=smoke", f"studies=[{STUDY}]"]
    with (folder / "snakemake.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, env=with_commands(), stdout=log, stderr=log, start_new_session=True
        )


def test_killed_twenty_times_the_results_are_the_same(smoke_run: Path, tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    generator = random.Random(2022)
    for _ in range(KILLS):
        process = start(tmp_path)
        try:
            process.wait(timeout=generator.uniform(4, 12))
        except subprocess.TimeoutExpired:
            if generator.random() < 0.5:  # with its jobs, as when a machine goes down
                os.killpg(process.pid, signal.SIGKILL)
            else:  # alone, as when the system runs out of memory: its jobs go on
                process.kill()
            process.wait()
    done = snakemake(tmp_path, "scale=smoke", f"studies=[{STUDY}]")
    assert done.returncode == 0, done.stderr[-4000:]
    said = (tmp_path / "snakemake.log").read_text(encoding="utf-8", errors="replace") + done.stderr
    assert "cleared the lock of a workflow that was killed" in said
    assert "Traceback" not in said
    for name in TABLES:
        mine, undisturbed = (run / f"results/smoke/{STUDY}/core" / name for run in (tmp_path, smoke_run))
        assert mine.read_bytes() == undisturbed.read_bytes(), name


def test_a_second_workflow_in_the_same_folder_is_told_who_is_there(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    first = start(tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "work/smoke").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = snakemake(tmp_path, "scale=smoke")
        assert second.returncode == 1
        errors = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert re.search(rf"another workflow runs in this folder \(process {first.pid} on ", errors[0])
        assert snakemake(tmp_path, "scale=smoke", options=("--dry-run", "--quiet")).returncode == 0
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()


def test_folders_with_a_shell_s_characters_do_no_harm(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
    odd = "it's a $(touch broken) `touch broken`; touch broken & folder"
    done = snakemake(tmp_path, "scale=smoke", f'work="{odd}"', f"studies=[{STUDY}]", options=("--until", "tokenizer"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / odd / "smoke/tokenizer.model").is_file()
    assert not (tmp_path / "broken").exists()


def test_a_disk_that_fills_while_tables_are_written_ends_in_one_line_and_loses_nothing(
    smoke_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(smoke_run, tmp_path, dirs_exist_ok=True)
    tables, report = (tmp_path / f"{top}/smoke/{STUDY}/{rest}" for top, rest in FOLDERS)
    before = {path.name: path.read_bytes() for path in tables.iterdir() if not path.name.startswith(".")}
    study, scores = report / "study.yaml", tables.parent / "scores.csv"
    arguments = [study, scores, f"work/smoke/{STUDY}", "work/smoke/overview.csv", tables]
    command = ["asr-distill", "tables", *map(str, arguments), "--errors", str(report / "errors.csv")]
    full = subprocess.run(
        ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *command],  # no file of more than 1,024 bytes
        cwd=tmp_path,
        env=with_commands(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    assert len([line for line in full.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in full.stderr
    shutil.rmtree(tables)  # as Snakemake does with the output of a job that failed
    done = snakemake(tmp_path, "scale=smoke", f"studies=[{STUDY}]")
    assert done.returncode == 0, done.stderr[-3000:]
    assert {name: (tables / name).read_bytes() for name in before} == before
