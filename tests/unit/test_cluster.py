"""What a job of SLURM knows of its node; the rest is tested on a real cluster (tests/workflow/test_slurm.py)."""

import pytest

from asr_distill.cluster import gpus_at_hand


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1,2"}, 3),
        ({"SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "3"}, 1),
        ({"SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}, 2),
        ({"SLURM_JOB_ID": "7"}, 0),
    ],
)
def test_the_gpus_of_a_job_are_those_that_it_asked_for(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], gpus: int
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert gpus_at_hand() == gpus
