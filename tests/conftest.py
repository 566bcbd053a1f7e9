"""Shared by all tests."""

import os
import shutil

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes would wait for each other's cores
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no process is left with one of them at the end."""
    longest = ("test_survival.py", "test_slurm.py", "test_lm_into_ctc.py", "test_smoke.py")
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


@pytest.fixture(scope="session")
def browser() -> str:
    """Return a Chromium binary; a machine without one skips the test, unless skips are forbidden."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("ASR_DISTILL_FORBID_SKIPS") == "1":
        pytest.fail("no Chromium binary found, and ASR_DISTILL_FORBID_SKIPS=1 forbids skipping")
    pytest.skip("no Chromium binary (chromium, chromium-browser, google-chrome) found")
