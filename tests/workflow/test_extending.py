"""What docs/extending.md says is done: its files are written, its change applied, its test run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

from conftest import ROOT, copy_workflow, planned_jobs, snakemake

pytestmark = pytest.mark.workflow

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`(config/\S+)`:\n\n```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL))


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy_workflow(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def write_manifests(folder: Path, name: str, *, speakers: int) -> None:
    rng = np.random.default_rng(0)
    recordings, supervisions = [], []
    for number in range(2 * speakers):
        path = folder / f"{name}-{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(scale=0.1, size=16000), 16000)
        recordings.append(Recording.from_file(path))
        supervisions.append(
            SupervisionSegment(
                id=path.stem, recording_id=path.stem, start=0, duration=1, text="A B", speaker=f"{name}{number // 2}"
            )
        )
    RecordingSet.from_recordings(recordings).to_file(folder / f"recordings_{name}.jsonl.gz")
    SupervisionSet.from_segments(supervisions).to_file(folder / f"supervisions_{name}.jsonl.gz")


def test_the_page_has_its_files() -> None:
    assert set(FILES) == {"config/studies/how_soft.yaml", "config/scales/mine.yaml"}


def test_a_study_of_ones_own_is_planned(folder: Path) -> None:
    jobs = planned_jobs(folder, "scale=smoke", "studies=[how_soft]")
    trained = {job for job in jobs if job.startswith("Train ")}
    assert trained == {f"Train {run} (seed 0)" for run in ("teacher", "half", "quarter")}


def test_a_corpus_of_ones_own_is_prepared(folder: Path) -> None:
    for name, speakers in (("train", 5), ("test", 2)):
        write_manifests(folder / "corpora/mine", name, speakers=speakers)
    choice = ("scale=mine", "data=corpora", "studies=[how_soft]")
    done = snakemake(folder, *choice, options=("--until", "overview"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = (folder / "work/mine/overview.csv").read_text().splitlines()
    sizes = {row.split(",")[0]: row.split(",")[2] for row in rows[1:]}
    assert sizes == {"train": "4", "more": "2", "dev": "4", "test": "4"}


def test_a_method_of_ones_own_is_a_key_of_a_run(folder: Path) -> None:
    shutil.copytree(ROOT / "src", folder / "src")
    (folder / "change.diff").write_text(block("diff"), encoding="utf-8")
    subprocess.run(["git", "apply", "change.diff"], cwd=folder, check=True)
    (folder / "test_entropy.py").write_text(block("python"), encoding="utf-8")
    path = folder / "config/studies/how_soft.yaml"
    path.write_text(path.read_text().replace("alpha: 0.25,", "alpha: 0.25, confidence_penalty: 0.1,"))
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_entropy.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout[-3000:]
    script = (
        "from pathlib import Path\nfrom asr_distill.experiment import load_experiment\n"
        "values = {'scale': 'smoke', 'studies': ['how_soft']}\n"
        "run = load_experiment(values, root=Path.cwd()).run('how_soft', 'quarter', seed=0)\n"
        "print(run.run.confidence_penalty)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert loaded.stdout.strip() == "0.1", loaded.stderr[-2000:]
