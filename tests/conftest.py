"""Shared by all tests."""

import os
import shutil

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes would wait for each other's cores
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def browser() -> str:
    """Return a Chromium binary; a machine without one skips the test, unless skips are forbidden."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("ASR_DISTILL_FORBID_SKIPS") == "1":
        pytest.fail("no Chromium binary found, and ASR_DISTILL_FORBID_SKIPS=1 forbids skipping")
    pytest.skip("no Chromium binary (chromium, chromium-browser, google-chrome) found")
