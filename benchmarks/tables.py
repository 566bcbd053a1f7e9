"""The measurements as tables, for machines (csv) and for people (Markdown)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from asr_distill.reporting.grid import Column, Grid, markdown
from benchmarks.inputs import Shape
from benchmarks.measure import Measurement
from benchmarks.suites import DATA_PARALLEL_GOAL, GOALS, TRAINING_GOAL, Goal, Request, ShapeResults
from benchmarks.training_step import Size

PRECISIONS = {"float32": "float32", "bf16": "bf16 products"}
SIZES = ("batch", "frames", "labels", "vocabulary", "joint")
MEMORY_NOTE = (
    "Memory: the peak of the first call beyond what was in use before it, inputs made; gradients included; "
    "1 MB = 10⁶ bytes."
)
LATTICE_NOTES = (
    "Time of forward and backward pass; minimum and median of calls spread over rounds in which all rows take turns. "
    "Each row has a process of its own.",
    "× products: minimum time as a multiple of the minimum time of the bare float32 matrix products that no "
    "implementation can do without: three, or four where there is a teacher (nodes × H by H × V; nodes × V by V × H; "
    "V × nodes by nodes × H; the teacher's nodes × H by H × V).",
    MEMORY_NOTE,
    "bf16 products: the row rounds the factors of its matrix products to bf16 and sums in float32. It too is compared "
    "with the float32 products.",
    "Not measured: k2 and fast_rnnt, which are not built for this version of PyTorch. NeMo and ESPnet carry copies of "
    "warprnnt-numba's loss, which takes tens of seconds a call on a CPU and is measured only when asked for.",
)


def lattice_frame(results: Sequence[ShapeResults], request: Request) -> pd.DataFrame:
    """Return one row per shape and subject."""
    return pd.DataFrame([row for result in results for row in _lattice_rows(result, request)])


def lattice_text(frame: pd.DataFrame, request: Request) -> str:
    """Return one table per shape."""
    parts = [f"# Lattice losses\n\n{where(request)}\n"]
    for _, rows in frame.groupby("shape", sort=False):
        parts.append(markdown(_lattice_grid(rows), level=2))
    parts.append("\n".join(f"- {note}" for note in LATTICE_NOTES) + "\n")
    return "\n".join(parts)


def training_frame(measurements: Sequence[Measurement], size: Size, request: Request) -> pd.DataFrame:
    """Return one row per toolkit and precision; on a CPU with one thread."""
    rows = []
    for measurement in measurements:
        row = {"device": request.device, "threads": 1, "size": size.name, "speech_seconds": size.speech_seconds}
        row |= _common(measurement)
        rate = size.speech_seconds / measurement.minimum if measurement.seconds else None
        row["speech_seconds_per_second"] = None if rate is None else round(rate, 1)
        is_goal = measurement.subject.name == "ours" and size.name == "2M" and request.device == "cpu"
        row["goal"] = f"at least {TRAINING_GOAL:g}" if is_goal else ""
        row["goal_met"] = _verdict(None if rate is None else rate >= TRAINING_GOAL) if is_goal else ""
        rows.append(row | {"note": measurement.note or measurement.failure})
    return pd.DataFrame(rows)


def training_text(frame: pd.DataFrame, size: Size, request: Request) -> str:
    """Return the training steps for people."""
    labels = ("minimum, ms", "median, ms", "seconds of speech per second", "memory, MB")
    columns = [Column(label=label, align="left") for label in ("system", "precision", "size")]
    columns += [*(Column(label=label) for label in labels), Column(label="goal", align="left")]
    rows = tuple(
        (
            row["label"],
            PRECISIONS[row["precision"]],
            row["note"],
            *(_milliseconds(row[name]) for name in ("min_seconds", "median_seconds")),
            _number(row["speech_seconds_per_second"], decimals=0),
            _number(row["peak_megabytes"], decimals=0),
            ": ".join(cell for cell in (row["goal"], row["goal_met"]) if cell),
        )
        for row in frame.to_dict("records")
    )
    caption = (
        f"{where(request, threads=1)} Forward pass, transducer loss, backward pass and AdamW on {size.batch} "
        f"utterances of {size.feature_frames / 100:g} s with {size.labels} of {size.vocabulary} labels each. Models: "
        f"a Conformer of {size.layers} layers and dimension {size.dim} on frames of 40 ms, an LSTM and a joint network "
        "of the same dimension; dropout 0.1. No augmentation, clipping, averaging or auxiliary loss."
    )
    notes = ("Seconds of speech per second from the minimum time.", MEMORY_NOTE)
    return markdown(
        Grid(
            name="training_step", title="Training step", caption=caption, columns=tuple(columns), rows=rows, notes=notes
        )
    )


def data_parallel_frame(measurements: Sequence[Measurement], size: Size) -> pd.DataFrame:
    """Return one row per number of processes."""
    rows, alone = [], measurements[0]
    for measurement in measurements:
        row = {"device": "cpu", "threads": 1, "size": size.name, "utterances": size.batch} | _common(measurement)
        ratio = alone.minimum / measurement.minimum if alone.seconds and measurement.seconds else None
        row["utterances_per_second"] = round(size.batch / measurement.minimum, 2) if measurement.seconds else None
        row["times_one_process"] = None if ratio is None else round(ratio, 3)
        is_goal = measurement.subject.name == "two" and size.name == "2M"
        row["goal"] = f"at least {DATA_PARALLEL_GOAL:g}" if is_goal else ""
        row["goal_met"] = _verdict(None if ratio is None else ratio >= DATA_PARALLEL_GOAL) if is_goal else ""
        rows.append(row | {"note": measurement.note or measurement.failure})
    return pd.DataFrame(rows)


def data_parallel_text(frame: pd.DataFrame, size: Size) -> str:
    """Return the training steps of one and of two processes for people."""
    labels = ("minimum, ms", "median, ms", "utterances per second", "× one process")
    columns = [Column(label="processes", align="left"), *(Column(label=label) for label in labels)]
    columns.append(Column(label="goal", align="left"))
    rows = tuple(
        (
            row["label"],
            *(_milliseconds(row[name]) for name in ("min_seconds", "median_seconds")),
            _number(row["utterances_per_second"], decimals=1),
            _number(row["times_one_process"], decimals=2),
            ": ".join(cell for cell in (row["goal"], row["goal_met"]) if cell),
        )
        for row in frame.to_dict("records")
    )
    caption = (
        "Measured on: CPU, one thread a process. Our training step, as in the table of training steps, on the same "
        f"{size.batch} utterances: in one process, and half of them in each of two that add up their gradients."
    )
    notes = ("Utterances per second from the minimum time; two processes need two idle cores.",)
    return markdown(
        Grid(
            name="data_parallel",
            title="Two processes",
            caption=caption,
            columns=tuple(columns),
            rows=rows,
            notes=notes,
        )
    )


def where(request: Request, *, threads: int | None = None) -> str:
    """Return on what was measured."""
    count = threads or request.threads
    device = "CUDA" if request.device == "cuda" else f"CPU, {count} thread{'' if count == 1 else 's'}"
    return f"Measured on: {device}; machine and packages in provenance.json."


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table for machines."""
    frame.to_csv(path, index=False, lineterminator="\n")


def _lattice_rows(result: ShapeResults, request: Request) -> Iterator[dict[str, Any]]:
    shape, products = result.shape, _products(result.measurements)
    for measurement in result.measurements:
        subject = measurement.subject
        row = {"device": request.device, "threads": request.threads}
        row |= ({"axis": result.axis} if result.axis else {}) | {"shape": shape.name}
        row |= {size: getattr(shape, size) for size in SIZES} | {"shortest": shape.shortest}
        row |= _common(measurement)
        bare = products.get(subject.products)
        ratio = measurement.minimum / bare if measurement.seconds and bare else None
        row["times_products"] = None if ratio is None else round(ratio, 3)
        goal = GOALS.get((shape.name, subject.name)) if request.device == "cpu" else None
        row["goal"] = _goal(goal)
        row["goal_met"] = _verdict(_reached(goal, ratio, row["peak_megabytes"])) if goal else ""
        row["loss"] = round(statistics.fmean(measurement.losses), 4) if measurement.losses else None
        norms = measurement.gradient_norms
        row["gradient_norm"] = float(f"{sum(norm**2 for norm in norms) ** 0.5:.5g}") if norms else None
        yield row | {"note": measurement.note or measurement.failure}


def _common(measurement: Measurement) -> dict[str, Any]:
    subject, seconds = measurement.subject, measurement.seconds
    peak = measurement.peak_bytes
    return {
        "subject": subject.name,
        "label": subject.label,
        "precision": subject.precision,
        "min_seconds": round(min(seconds), 6) if seconds else None,
        "median_seconds": round(statistics.median(seconds), 6) if seconds else None,
        "calls": len(seconds),
        "peak_megabytes": None if peak is None else round(peak / 1e6, 1),
    }


def _products(measurements: Sequence[Measurement]) -> dict[int, float]:
    """Return the shortest time of the bare float32 products, by how many they are."""
    return {
        m.subject.products: m.minimum
        for m in measurements
        if m.subject.name.startswith("products") and m.subject.precision == "float32" and m.seconds
    }


def _lattice_grid(rows: pd.DataFrame) -> Grid:
    first = rows.iloc[0]
    sizes = Shape(name=first["shape"], **{size: int(first[size]) for size in SIZES})
    columns = [Column(label="subject", align="left"), Column(label="precision", align="left")]
    columns += [Column(label=label) for label in ("minimum, ms", "median, ms", "× products", "memory, MB")]
    columns += [Column(label=label, align="left") for label in ("goal", "note")]
    cells = tuple(
        (
            row["label"],
            PRECISIONS[row["precision"]],
            *(_milliseconds(row[name]) for name in ("min_seconds", "median_seconds")),
            _number(row["times_products"], decimals=2),
            _number(row["peak_megabytes"], decimals=0),
            ": ".join(cell for cell in (row["goal"], row["goal_met"]) if cell),
            row["note"],
        )
        for row in rows.to_dict("records")
    )
    caption = (
        f"{sizes.batch} utterances, {sizes.frames} frames, {sizes.labels} labels, vocabulary {sizes.vocabulary}, "
        f"joint network {sizes.joint} wide."
    )
    return Grid(name="lattice", title=sizes.name, caption=caption, columns=tuple(columns), rows=cells)


def _goal(goal: Goal | None) -> str:
    if goal is None:
        return ""
    memory = "" if goal.megabytes == float("inf") else f", {goal.megabytes:g} MB"
    return f"{goal.times_products:g} × products{memory}"


def _reached(goal: Goal, ratio: float | None, megabytes: float | None) -> bool | None:
    if ratio is None or megabytes is None:
        return None
    return ratio <= goal.times_products and megabytes <= goal.megabytes


def _verdict(reached: bool | None) -> str:
    return {True: "reached", False: "missed", None: "not measured"}[reached]


def _milliseconds(seconds: float) -> str:
    if pd.isna(seconds):
        return ""
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def _number(value: float, *, decimals: int) -> str:
    return "" if pd.isna(value) else f"{value:.{decimals}f}"
