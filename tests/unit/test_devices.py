"""Which GPUs a job takes for itself."""

from __future__ import annotations

import os
import tempfile

import pytest

from asr_distill import devices
from asr_distill.devices import claim_gpus, num_gpus


@pytest.fixture
def visible(monkeypatch, tmp_path):
    """Return a function that sets CUDA_VISIBLE_DEVICES; locks lie in a folder of their own."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    claimed: list = []
    monkeypatch.setattr(devices, "_claimed", claimed)
    yield lambda names: monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    for lock in claimed:
        lock.close()


def test_jobs_take_gpus_that_no_other_has(visible):
    taken = []
    for count in (1, 2):
        visible("3,MIG-GPU-5a/1/0,7,8")
        claim_gpus(count)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["3", "MIG-GPU-5a/1/0,7"]
    visible("3,MIG-GPU-5a/1/0,7,8")
    with pytest.raises(ValueError, match="--processes: 2 GPUs are wanted, but other jobs leave 1 of 4; wait for them"):
        claim_gpus(2)
    claim_gpus(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "8"


def test_what_a_scheduler_gave_is_left_alone(visible):
    for names, count in (("0", 1), ("0,1", 2), ("0,1", 3), ("", 1), ("-1", 1)):
        visible(names)
        claim_gpus(count)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == names
    assert devices._claimed == []


@pytest.mark.parametrize(("names", "number"), [("", 0), ("-1", 0), ("0", 1), ("2, 5", 2), ("GPU-1,GPU-2,", 2)])
def test_gpus_are_counted(visible, names, number):
    visible(names)
    assert num_gpus() == number
