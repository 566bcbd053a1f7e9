"""The commands that README, results and docs tell users to type: Snakemake plans what they ask for, make knows them."""

import re
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT, with_commands

pytestmark = pytest.mark.workflow

PAGES = ("README.md", "results/README.md", "benchmarks/README.md", "docs/clusters.md", "docs/real_speech.md")
ELSEWHERE = ("how_soft", "--sdm")
"""In commands that another test runs (test_extending.py), or that need what no test machine has, as their page says."""


def commands() -> list[str]:
    """Return the commands of all code blocks for shells, each once, without comments and what follows."""
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in PAGES]
    blocks = [block for page in pages for block in re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)]
    lines = [re.sub(r"\s+#.*| && .*", "", line).strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(lines))


def of(program: str) -> list[str]:
    return [line for line in commands() if line.startswith(f"{program} ") and not any(x in line for x in ELSEWHERE)]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=with_commands(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_are_commands() -> None:
    assert len(of("snakemake")) >= 8
    assert "make reproduce" in of("make")


@pytest.mark.parametrize("command", of("snakemake"))
def test_snakemake_plans_it(command: str, copied_workflow: Path) -> None:
    words = "" if "--dry-run" in command else "--dry-run --quiet "
    done = run(command.replace("snakemake ", f"snakemake {words}", 1), copied_workflow)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    assert "Time of these jobs" in done.stdout + done.stderr


@pytest.mark.parametrize("command", of("make"))
def test_make_knows_it(command: str) -> None:
    done = run(command.replace("make ", "make --dry-run ", 1), ROOT)
    assert done.returncode == 0, done.stderr
