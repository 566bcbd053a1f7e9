from __future__ import annotations

import getpass
import json
import platform
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_study import FakeStudy

from asr_distill.reporting import provenance
from asr_distill.reporting.provenance import config_hash, git_state, write_provenance

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a git of our own before any other, which answers as told."""

    def install(*, top: Path, changes: str = "") -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        script = f"""#!/bin/sh
case "$*" in
  *--show-toplevel) echo '{top}' ;;
  *"rev-parse HEAD") echo {COMMIT} ;;
  *status*":(exclude)results/published :(exclude)results/README.md") printf '{changes}' ;;
  *) exit 2 ;;
esac
"""
        (folder / "git").write_text(script)
        (folder / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    return install


def write(fake: FakeStudy) -> dict[str, Any]:
    work, output = fake.scale_work, fake.results / "provenance.json"
    records = [work / "corpus.yaml", work / "tokenizer.yaml"]
    write_provenance(fake.study, records=records, runs=fake.runs, work=work, root=fake.root, output=output)
    return json.loads(output.read_text())


def test_document(fake_study: FakeStudy, fake_git) -> None:
    fake_git(top=fake_study.root, changes=" M src/x.py\\n")
    found = write(fake_study)
    assert found["git"] == {"commit": COMMIT, "dirty": True}
    assert (found["study"], found["scale"], found["seeds"]) == ("soft_vs_hard", "fake", [0])
    assert found["packages"]["jiwer"].count(".") >= 1
    assert found["packages"]["torch"] != "not installed"
    assert found["hardware"]["training_devices"] == ["cpu"]
    assert found["jobs"]["corpus/prepare"] == {"seconds": 12.0, "peak_memory_mb": 812.5}
    assert len(found["jobs"]) == 11
    total = sum(job["seconds"] for job in found["jobs"].values())
    assert found["total_job_seconds"] == pytest.approx(total, abs=1)


def test_jobs_of_other_studies_and_reports_are_not_behind_these_results(fake_study: FakeStudy) -> None:
    before = write(fake_study)["jobs"]
    measured = (fake_study.scale_work / "corpus/prepare.tsv").read_text()
    for path in ("other/report/core", "other/run/seed0", "language_models", "soft_vs_hard/report/table5"):
        folder = fake_study.scale_work / path
        folder.mkdir(parents=True)
        (folder / "job.tsv").write_text(measured)
    (fake_study.runs / "report/core/score.tsv").write_text(measured)
    found = write(fake_study)["jobs"]
    assert set(found) - set(before) == {"soft_vs_hard/report/core/score"}


def test_names_no_host_user_or_path(fake_study: FakeStudy, fake_git) -> None:
    fake_git(top=fake_study.root)
    values = json.dumps(write(fake_study))
    assert str(fake_study.root) not in values
    assert "/somewhere/else" not in values
    assert f'"{platform.node()}"' not in values
    assert f'"{getpass.getuser()}"' not in values
    assert "/" not in values.replace("corpus/", "").replace("soft_vs_hard/", "").replace("/seed0/", "")


def test_git(tmp_path: Path, fake_git) -> None:
    fake_git(top=tmp_path)
    assert git_state(tmp_path) == {"commit": COMMIT, "dirty": False}
    fake_git(top=tmp_path.parent)
    assert git_state(tmp_path) is None, "somebody else's repository around ours"


def test_outside_git_and_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def test_hash_depends_on_values_but_not_on_where_data_lies(fake_study: FakeStudy) -> None:
    corpus = fake_study.scale_work / "corpus.yaml"
    before = config_hash([fake_study.study, corpus])
    values = yaml.safe_load(corpus.read_text())
    corpus.write_text(yaml.safe_dump(values | {"data": "/another/place"}))
    assert config_hash([fake_study.study, corpus]) == before
    values["corpus"]["seed"] += 1
    corpus.write_text(yaml.safe_dump(values))
    assert config_hash([fake_study.study, corpus]) != before


def test_processor_has_a_name() -> None:
    assert provenance.hardware()["cpu"]
    assert provenance.hardware()["cores"] >= 1


def test_reading_faults(tmp_path: Path) -> None:
    path = tmp_path / "provenance.json"
    with pytest.raises(ValueError, match="nobody can tell where these results come from"):
        provenance.read_provenance(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        provenance.read_provenance(path)
