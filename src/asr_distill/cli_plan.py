"""The bill before the run; no stage of the workflow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def plan(
    scale: Annotated[str, typer.Option(help="A file in config/scales/.")],
    study: Annotated[str, typer.Option(help="A file in config/studies/.")],
    selection: Annotated[str, typer.Option(help="core, complete, or a table.")] = "core",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs there are; 0: CPU cores alone.")] = 1,
    gpu: Annotated[
        str, typer.Option(help="Their kind: h100, h200, a100 or rtx4090; of another, one of its memory.")
    ] = "h100",
    gpus_per_run: Annotated[int, typer.Option(min=1, help="GPUs that share the batches of a training.")] = 1,
    throughput: Annotated[
        float | None, typer.Option(help="What training reaches on a GPU, 10^12 operations a second, if measured.")
    ] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="CPU cores; 8 for each GPU by default.")] = None,
    data: Annotated[str | None, typer.Option(help="Folder of the real corpora; the config's by default.")] = None,
) -> None:
    """Tell what a study would cost at a scale before it runs: jobs, hours, wall time, memory, disk."""
    logging.basicConfig(handlers=[logging.NullHandler()])  # an error is one line, and there is no log
    from asr_distill.planning.plan import Choices, make_plan, plan_text

    choices = Choices(
        scale=scale,
        study=study,
        selection=selection,
        seeds=seeds,
        gpus=gpus,
        gpu=gpu,
        gpus_per_run=gpus_per_run,
        throughput=throughput,
        cores=cores,
        data=data,
    )
    print(plan_text(make_plan(choices, root=Path())))
