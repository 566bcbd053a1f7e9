"""`snakemake --dry-run` and `asr-distill plan` tell what the run would cost: the part that looks into Snakemake."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Mapping
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
                wildcards=dict(job.wildcards_dict),
            )
        )
    return found


def jobs_from_nothing(target: str, *, config: Mapping[str, Any], root: Path) -> list[Job]:
    """Return all jobs of a target as if nothing had been built yet; takes seconds and builds nothing.

    Args:
        target: a rule such as all or complete, or a table.
        config: values for --config, checked beforehand; `work` and `results` do not matter.
        root: folder of the Snakefile.

    Raises:
        ValueError: when Snakemake finds no way to the target.
    """
    from snakemake import api
    from snakemake.settings import types

    said = io.StringIO()
    with tempfile.TemporaryDirectory() as empty, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        elsewhere = {"work": f"{empty}/work", "results": f"{empty}/results"}
        output = types.OutputSettings(dryrun=True, quiet={types.Quietness.ALL})
        with api.SnakemakeApi(output) as snakemake:
            workflow = snakemake.workflow(
                resource_settings=types.ResourceSettings(cores=1),
                config_settings=types.ConfigSettings(config={**config, **elsewhere}),
                snakefile=root / "Snakefile",
                workdir=root,
            )
            try:
                workflow.dag(types.DAGSettings(targets={target})).printrulegraph()
            except Exception as error:  # Snakemake has a class of its own for each
                raise ValueError(f"{target}: Snakemake cannot plan it: {' '.join(str(error).split())}") from None
            return planned_jobs(workflow._workflow.dag)
