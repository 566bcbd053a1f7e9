"""The environments for clusters hold what the lock file holds."""

import tomllib

import pytest

from envs import licences
from envs.generate import ROOT, environments, locked

LOCK = (ROOT / "uv.lock").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["asr-distill.yaml", "asr-distill.def"])
def test_the_environments_are_in_step_with_the_lock_file(name: str) -> None:
    written = (ROOT / "envs" / name).read_text(encoding="utf-8")
    assert written == environments(LOCK)[name], "run `python envs/generate.py`"


def test_the_page_of_licences_says_what_the_packages_say() -> None:
    assert licences.PAGE.read_text(encoding="utf-8") == licences.page(), "run `python -m envs.licences`"


def test_every_dependency_of_the_project_is_pinned_and_no_tool_of_its_developers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    direct = {requirement.split(">=")[0].split("==")[0] for requirement in project["project"]["dependencies"]}
    names = {name for name, _ in locked(tomllib.loads(LOCK), project="asr-distill")}
    assert direct <= names
    assert len(names) == len(locked(tomllib.loads(LOCK), project="asr-distill"))
    assert not names & {"pytest", "ruff", "snakefmt"}


def test_markers_versions_and_extras_choose_the_packages() -> None:
    lock = {
        "package": [
            {
                "name": "mine",
                "version": "1",
                "dependencies": [
                    {"name": "a", "version": "2", "marker": "python_full_version >= '3.12'"},
                    {"name": "a", "version": "1", "marker": "python_full_version < '3.12'"},
                    {"name": "b", "extra": ["more"]},
                    {"name": "mac", "marker": "sys_platform == 'darwin'"},
                ],
            },
            {"name": "a", "version": "1"},
            {"name": "a", "version": "2", "dependencies": [{"name": "b"}]},
            {"name": "b", "version": "3", "optional-dependencies": {"more": [{"name": "c"}], "other": [{"name": "d"}]}},
            {"name": "c", "version": "4"},
            {"name": "d", "version": "5"},
            {"name": "mac", "version": "6"},
        ]
    }
    assert locked(lock, project="mine") == {("a", "2"), ("b", "3"), ("c", "4")}
