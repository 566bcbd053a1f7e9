from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_stages import report_fake
from fake_study import FakeStudy, build_fake_study

SEEDS = (0, 1)


@pytest.fixture
def fake_study(tmp_path: Path) -> FakeStudy:
    """Return an invented study that no stage has touched."""
    return build_fake_study(tmp_path)


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    """Return an invented study of two seeds after all stages, to be read only: drawing it takes seconds."""
    fake = build_fake_study(tmp_path_factory.mktemp("reported"), seeds=SEEDS)
    report_fake(fake)
    return fake


@pytest.fixture
def reported_copy(reported: FakeStudy, tmp_path: Path) -> FakeStudy:
    """Return a copy of the reported study that a test may change."""
    root = tmp_path / "copy"
    shutil.copytree(reported.root, root)
    return FakeStudy(root=root, record=reported.record)
