"""A copy of the workflow in a temporary folder, and its one complete run at the smoke scale."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "workflow", "config", "profiles", "envs")

Snakemake = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def copied_workflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workflow")
    copy_workflow(folder)
    return folder


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after `snakemake` has built everything at the smoke scale; processes that test together share it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / "smoke_run", base / "smoke_run_is_done"
    with (base / "smoke_run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir()
            copy_workflow(folder)
            built = snakemake(folder, "scale=smoke")
            assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
            done.touch()
    return folder


def copy_workflow(folder: Path) -> None:
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)


def with_commands(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with the commands of this Python on the path."""
    return {**environment, "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])}


def snakemake(folder: Path, *config: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run Snakemake as a user does, with the environment's commands on the path."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *options]
    if config:
        command += ["--config", *config]
    return subprocess.run(
        command, cwd=folder, env=with_commands(), capture_output=True, text=True, check=False, timeout=600
    )


def planned_jobs(folder: Path, *config: str) -> list[str]:
    """Return the messages of the jobs that a dry run plans."""
    done = snakemake(folder, *config, options=("--dry-run",))
    assert done.returncode == 0, done.stderr[-2000:]
    return re.findall(r"^Job \d+: (.*)$", done.stdout + done.stderr, flags=re.MULTILINE)
