"""`python -m benchmarks --output results/benchmarks`: measure, check that all agree, write tables and a figure."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from asr_distill.devices import claim_gpus

ROOT = Path(__file__).parents[1]
TABLES = ("lattice", "sweep", "training_step", "data_parallel")
PEERS = ("speechbrain", "numba", "warprnnt-numba")


def main() -> None:
    """Run the command; disagreeing subjects end it in one line."""
    options = _options()
    _start(options)
    try:
        run(options)
    except ValueError as error:
        logging.getLogger(__name__).error(error)
        raise SystemExit(1) from None


def run(options: argparse.Namespace) -> None:
    """Measure what was asked for and write it."""
    import torch

    from asr_distill.reporting import style
    from benchmarks import suites, tables
    from benchmarks.figure import sweep_figure
    from benchmarks.training_step import MEDIUM, TINY

    device = ("cuda" if torch.cuda.is_available() else "cpu") if options.device == "auto" else options.device
    request = suites.Request(device=device, threads=options.threads, quick=options.quick, slow_peers=options.slow_peers)
    output = options.output
    output.mkdir(parents=True, exist_ok=True)
    document = provenance(options, device=device)
    if "lattice" in options.only:
        frame = tables.lattice_frame(suites.lattice_results(request), request)
        tables.write_csv(frame, output / "lattice.csv")
        (output / "lattice.md").write_text(tables.lattice_text(frame, request), encoding="utf-8")
    if "sweep" in options.only:
        frame = tables.lattice_frame(suites.sweep_results(request), request)
        tables.write_csv(frame, output / "sweep.csv")
        with style.house_style():
            style.save(sweep_figure(frame), folder=output, name="sweep")
    if "training_step" in options.only:
        size = TINY if options.quick else MEDIUM
        frame = tables.training_frame(suites.training_results(request), size, request)
        tables.write_csv(frame, output / "training_step.csv")
        (output / "training_step.md").write_text(tables.training_text(frame, size, request), encoding="utf-8")
    if "data_parallel" in options.only:
        size = TINY if options.quick else MEDIUM
        frame = tables.data_parallel_frame(suites.data_parallel_results(request), size)
        tables.write_csv(frame, output / "data_parallel.csv")
        (output / "data_parallel.md").write_text(tables.data_parallel_text(frame, size), encoding="utf-8")
    document |= {"finished": _now(), "load_average_after": os.getloadavg()}
    (output / "provenance.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def provenance(options: argparse.Namespace, *, device: str) -> dict[str, Any]:
    """Return what the figures will depend on; it names no host, no user and no absolute path."""
    import torch

    from asr_distill.reporting.provenance import git_state, hardware, packages

    able = torch.cpu.get_capabilities()
    machine = hardware() | {"device": device, "threads": options.threads}
    machine["bf16"] = {name: bool(able.get(name, False)) for name in ("amx_bf16", "avx512_bf16")}
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    return {
        "started": _now(),
        "load_average_before": os.getloadavg(),
        "tables": list(options.only),
        "quick": options.quick,
        "complete": not options.quick and set(options.only) == set(TABLES),
        "git": git_state(ROOT),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages() | {name: _version(name) for name in PEERS},
        "hardware": machine,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (training steps: always one)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--quick", action="store_true", help="toy shapes, one call each: only to see that all runs")
    parser.add_argument("--slow-peers", action="store_true", help="also those that take tens of seconds a call")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="measure only these tables")
    parser.add_argument("--log", type=Path, help="file for log lines, beside standard error")
    return parser.parse_args()


def _start(options: argparse.Namespace) -> None:
    """Send log lines to their places, and take a GPU and threads before torch starts."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if options.log:
        handlers.append(logging.FileHandler(options.log, mode="w", encoding="utf-8"))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=handlers)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if options.device != "cpu":
        claim_gpus()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
