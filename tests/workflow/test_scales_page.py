"""docs/scales.md: every command on it runs, and what follows a plan's command is what it prints.

After a change of scales, rules or prices: python tests/workflow/test_scales_page.py writes the plans anew.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from conftest import with_commands

PAGE = Path(__file__).parents[2] / "docs/scales.md"
COMMAND = re.compile(r"```sh\n(?P<command>[^`]*?)\n```\n(?:\n```text\n(?P<printed>[^`]*?)\n```\n)?")

pytestmark = pytest.mark.workflow


def commands() -> list[tuple[str, str | None]]:
    return [(found["command"], found["printed"]) for found in COMMAND.finditer(PAGE.read_text(encoding="utf-8"))]


def run(command: str, folder: Path) -> str:
    """Run a command of the page with this environment's programs; Snakemake only plans."""
    program, *arguments = shlex.split(command)
    start = {"snakemake": ["-m", "snakemake"], "asr-distill": ["-c", CALL]}[program]
    more = ["--dry-run", "--quiet"] if program == "snakemake" else []
    done = subprocess.run(
        [sys.executable, *start, *arguments, *more],
        cwd=folder,
        env=with_commands(),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


CALL = "from asr_distill.cli import main; main()"


@pytest.mark.parametrize(("command", "printed"), commands(), ids=[command for command, _ in commands()])
def test_commands_of_the_page(command: str, printed: str | None, copied_workflow: Path) -> None:
    said = run(command, copied_workflow)
    assert (printed is not None) == command.startswith("asr-distill plan")
    if printed is not None:
        assert said.rstrip("\n") == printed, "run: python tests/workflow/test_scales_page.py"


def test_every_paper_scale_has_a_plan_of_each_of_its_studies() -> None:
    told = " ".join(command for command, _ in commands())
    for scale in ("librispeech_mini", "librispeech_100", "librispeech_960", "librilight"):
        assert f"plan --scale {scale} --study soft_vs_hard" in told
    for scale in ("librispeech_100", "librispeech_960"):
        assert f"plan --scale {scale} --study lm_into_ctc" in told


def write_page() -> None:
    """Put what each plan prints now behind its command."""
    from conftest import copy_workflow

    with tempfile.TemporaryDirectory() as folder:
        copy_workflow(Path(folder))

        def renewed(found: re.Match[str]) -> str:
            start = f"```sh\n{found['command']}\n```\n"
            if not found["command"].startswith("asr-distill plan"):
                return start
            return f"{start}\n```text\n{run(found['command'], Path(folder)).rstrip()}\n```\n"

        PAGE.write_text(COMMAND.sub(renewed, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write_page()
