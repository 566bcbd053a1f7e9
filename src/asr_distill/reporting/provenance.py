"""Where results come from: code, configuration, packages, hardware, and what each job took."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import yaml

from asr_distill.experiment import StudyRecord
from asr_distill.experiment.resolved import LOADER
from asr_distill.files import write_text
from asr_distill.reporting.inputs import read_benchmark, read_trainings

PACKAGE = "asr-distill"


def write_provenance(study: Path, *, records: Sequence[Path], runs: Path, work: Path, root: Path, output: Path) -> None:
    """Write provenance.json; it names no host, no user and no absolute path.

    Args:
        study: the resolved study.yaml.
        records: corpus.yaml and tokenizer.yaml; with study.yaml they are the configuration that is hashed.
        runs: folder that holds <run>/seed<seed>/training.json.
        work: folder of the scale, searched for Snakemake's benchmark files (*.tsv).
        root: the project's folder, whose git commit is recorded if it is a repository.
        output: file to write.
    """
    record = StudyRecord.read(study)
    trainings = read_trainings(record, runs=runs)
    jobs = dict(_jobs(record, work=work))
    document = {
        "study": record.name,
        "selection": record.selection,
        "scale": record.scale_name,
        "seeds": list(record.seeds),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": git_state(root),
        "config_sha256": config_hash([study, *records]),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages(),
        "hardware": hardware() | {"training_devices": sorted({training.device for training in trainings.values()})},
        "jobs": jobs,
        "total_job_seconds": round(sum(job["seconds"] or 0 for job in jobs.values()), 1),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def read_provenance(path: Path) -> dict[str, Any]:
    """Read provenance.json.

    Raises:
        ValueError: when it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: is missing, so nobody can tell where these results come from") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: is no JSON ({error.msg}); run the workflow again") from None


def git_state(root: Path) -> dict[str, Any] | None:
    """Return the commit and whether files differ from it, what is published aside; None outside a repository."""
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root.resolve():
        return None
    published = (":(exclude)results/published", ":(exclude)results/README.md")
    changes = _git(root, "status", "--porcelain", "--", ".", *published)
    return {"commit": commit, "dirty": changes != ""}


def config_hash(records: Sequence[Path]) -> str:
    """Return the SHA-256 of resolved records, leaving out where the data lies on this machine."""
    digest = hashlib.sha256()
    for path in records:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        values.pop("data", None)
        digest.update(json.dumps(values, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def packages() -> dict[str, str]:
    """Return the installed version of this package and of each of its direct dependencies."""
    requirements = metadata.requires(PACKAGE) or []
    names = [PACKAGE, *(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in requirements)]
    return {name: _version(name) for name in names}


def hardware() -> dict[str, Any]:
    """Return processor, cores this process may use, and memory of the machine that writes the report."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu_model(), "cores": cores, "memory_gib": round(psutil.virtual_memory().total / 2**30, 1)}


def _jobs(study: StudyRecord, *, work: Path) -> Iterator[tuple[str, dict[str, float | None]]]:
    """Yield name, wall time and peak memory of every measured job behind a report: of its runs, and what all share."""
    others = {path.parent.name for path in work.glob("*/report")} - {study.name}
    shared = set() if study.uses_language_models else {"language_models"}
    for path in sorted(work.rglob("*.tsv")):
        place = path.relative_to(work).with_suffix("")
        if place.parts[0] in others | shared or _about_other_sets(study, place):
            continue
        own = {*study.study.runs, "report"}
        if place.parts[0] == study.name and (
            place.parts[1] not in own or (place.parts[1] == "report" and place.parts[2] != study.selection)
        ):
            continue
        with path.open(encoding="utf-8") as file:
            if not file.readline().startswith("s\th:m:s"):
                continue
        job = read_benchmark(path)
        yield place.as_posix(), {"seconds": _number(job.seconds), "peak_memory_mb": _number(job.megabytes)}


def _about_other_sets(study: StudyRecord, place: Path) -> bool:
    """Return whether a job is about sets of parts of the corpus that no run of the study uses."""
    name, corpus = place.parts[0], study.scale.corpus
    if name == "corpus" and len(place.parts) > 2:
        return place.parts[1] not in corpus.parts
    named = name.removeprefix("synthesize_").split("+")
    return name.startswith(("synthesize_", "overview+")) and not {*named} - {"overview"} <= {*corpus.sets}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 1)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
