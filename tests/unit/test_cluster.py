"""What a job of SLURM knows of its node; the rest is tested on a real cluster (tests/workflow/test_slurm.py)."""

import pytest
import snakemake_executor_plugin_slurm

from asr_distill.cluster import gpus_at_hand, keep_status_command


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


def test_the_plugin_remembers_what_a_controller_said_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([None, 300, None, 60, None])
    monkeypatch.setattr(snakemake_executor_plugin_slurm, "get_min_job_age", lambda: next(answers))
    keep_status_command()
    assert [snakemake_executor_plugin_slurm.get_min_job_age() for _ in range(5)] == [None, 300, 300, 60, 60]
