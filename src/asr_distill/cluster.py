"""What must be known of a cluster before jobs are sent to it, and by the jobs themselves."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from asr_distill.devices import num_gpus

PROFILE = "profiles/slurm"
LOGS = Path(".snakemake/slurm_logs")
"""Where the executor plugin keeps what SLURM's jobs print, until they have ended well."""


def gpus_at_hand() -> int:
    """Return the number of GPUs of this machine, or of this job where SLURM runs it: those that it asked for."""
    if "SLURM_JOB_ID" in os.environ and "CUDA_VISIBLE_DEVICES" not in os.environ:
        return int(os.environ.get("SLURM_GPUS_ON_NODE", "0"))
    return num_gpus()


def check_site(workflow: Any) -> None:
    """Hold the jobs of Snakemake's workflow against the partitions of its SLURM profile; other executors pass.

    Raises:
        ValueError: when no partition is named, or none fits a job.
    """
    if workflow.executor_plugin.name != "slurm":
        return
    planned = [job for job in workflow.dag.needrun_jobs() if not job.is_norun]
    unplaced = [job for job in planned if not job.resources.get("slurm_partition")]
    if not unplaced:
        return
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    path = workflow.executor_settings.partition_config
    partitions = read_partition_file(Path(path)) if path else []
    if not partitions:
        raise ValueError(
            f"{path or f'{PROFILE}/config.yaml'}: no partition is named; write those of your cluster and their limits "
            f"into {PROFILE}/partitions.yaml (`sinfo -s` lists them)"
        )
    for job in unplaced:
        if all(partition.score_job_fit(job) is None for partition in partitions):
            raise ValueError(
                f"{path}: no partition fits '{job.rule.name}', which asks for {_needs(job)}; correct the limits there, "
                f"or ask for less: set-resources in {PROFILE}/config.yaml"
            )


def keep_status_command() -> None:
    """Let the executor plugin remember how long the controller remembers jobs.

    It asks at every look for its jobs, and where the controller does not answer it goes over to `sacct` (version 2.8),
    to which sites without accounting never give an answer: Snakemake would wait for ever once the controller had been
    down.
    """
    import snakemake_executor_plugin_slurm as plugin

    ask, known = plugin.get_min_job_age, None

    def remembered() -> int | None:
        nonlocal known
        known = ask() or known
        return known

    plugin.get_min_job_age = remembered


def job_logs() -> set[Path]:
    """Return what jobs of SLURM have printed: the running ones, and those that failed, in earlier runs too."""
    return set(LOGS.rglob("*.log"))


def job_errors(known: Collection[Path] = ()) -> list[str]:
    """Return the lines "error: ..." of failed jobs, each once; logs that were `known` before are left out."""
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(job_logs() - set(known))]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("error: ")]
    return list(dict.fromkeys(lines))


def _needs(job: Any) -> str:
    """Return what a job asks for, in words."""
    asked = job.resources
    words = [f"{asked.get('gpu', 0)} GPUs", f"{job.threads} threads"]
    return ", ".join([*words, f"{asked.get('mem_mb')} MB", f"{asked.get('runtime')} minutes"])
