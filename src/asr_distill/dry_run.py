"""`snakemake --dry-run` tells what the run would cost: the part that looks into Snakemake."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from asr_distill.reporting.cost import Job, cost_text, recorded_seconds


class CostTeller(logging.Handler):
    """Prints the cost of the planned jobs when Snakemake, in a dry run, has said all that it has to say."""

    def __init__(self, workflow: Any, *, work: Path, published: Path):
        super().__init__()
        self.workflow, self.work, self.published = workflow, work, published
        self.jobs: list[Job] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Read the plan as soon as Snakemake counts its jobs; while it pretends to run them, they become done."""
        if getattr(record, "event", None) == "run_info" and not self.jobs:
            self.jobs = planned_jobs(self.workflow.dag)

    def close(self) -> None:
        """Print the cost, once; Snakemake closes its handlers when it ends."""
        jobs, self.jobs = self.jobs, []
        if jobs:
            resources = self.workflow.global_resources
            cores, gpus = (resources[name].value for name in ("_cores", "gpu"))
            try:
                recorded = recorded_seconds(jobs, work=self.work, published=self.published)
                print(f"\n{cost_text(jobs, recorded=recorded, cores=cores, gpus=gpus)}")
            except ValueError as error:
                print(f"\nerror: {error}")
        super().close()


def planned_jobs(dag: Any) -> list[Job]:
    """Return the jobs of Snakemake's DAG, done ones included, targets that only gather files left out."""
    working = [job for job in dag.jobs if not job.is_norun]
    places = {job: place for place, job in enumerate(working)}
    found = []
    for job in working:
        planned = dag.needrun(job)
        found.append(
            Job(
                rule=job.rule.name,
                benchmark=Path(job.benchmark) if job.benchmark else None,
                planned=planned,
                needs=tuple(places[other] for other in dag.dependencies[job] if other in places),
                threads=job.threads if planned else 1,
                gpus=job.resources.get("gpu", 0) if planned else 0,
            )
        )
    return found
