"""The benchmarks on toy shapes: everything runs, all agree, the tables are whole. How fast it is, is no test."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.lattice import LOSSES, SLOW, loss_subject
from benchmarks.measure import QUICK, Measurement, Setting, Subject, Task, Unavailable, measure
from benchmarks.suites import SMALL, TOLERANCES, TOY_SWEEPS, Request, ShapeResults, check_agreement
from benchmarks.tables import lattice_frame, lattice_text

ROOT = Path(__file__).parents[3]
ABSENT = {"runs on CUDA only", "not installed"}
REQUEST = Request(device="cpu", threads=1)


@pytest.fixture(scope="session")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick", "--threads", "1", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--output", str(output)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return output


def test_every_loss_runs(quick: Path) -> None:
    frame = pd.read_csv(quick / "lattice.csv", keep_default_na=False)
    for _, rows in frame.groupby("shape"):
        assert set(rows["subject"]) == (set(LOSSES) - {SLOW}) | {"products_3", "products_4"}
    assert frame["shape"].nunique() == 2
    measured = frame[~frame["note"].isin(ABSENT)]
    assert (measured["min_seconds"].astype(float) > 0).all()
    assert (measured["times_products"].astype(float) > 0).all()
    assert set(frame.loc[frame["note"].isin(ABSENT), "subject"]) <= {"speechbrain_transducer"}


def test_all_agree(quick: Path) -> None:
    frame = pd.read_csv(quick / "lattice.csv")
    frame["value"] = frame["subject"].map({name: loss.value for name, loss in LOSSES.items()})
    computed = frame[frame["value"].notna() & (frame["value"] != "") & frame["loss"].notna()]
    for _, rows in computed.groupby(["shape", "value"]):
        whose = {subject.split("_")[0] for subject in rows["subject"]}
        assert "ours" in whose
        assert whose & {"torchaudio", "plain"}
        for column, tolerance in zip(("loss", "gradient_norm"), TOLERANCES["bf16"], strict=True):
            assert rows[column].tolist() == pytest.approx([rows[column].iloc[0]] * len(rows), rel=tolerance)


@pytest.mark.parametrize("name", ["lattice.md", "training_step.md", "data_parallel.md"])
def test_tables_are_whole(quick: Path, name: str) -> None:
    text = (quick / name).read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    assert len(tables) == {"lattice.md": 2, "training_step.md": 1, "data_parallel.md": 1}[name]
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    assert ("CPU, one thread a process." if name == "data_parallel.md" else "CPU, 1 thread;") in text
    assert not re.search(r"\bnan\b", text)


def test_sweeps_are_drawn(quick: Path) -> None:
    frame = pd.read_csv(quick / "sweep.csv")
    for axis, values in TOY_SWEEPS.items():
        assert set(frame.loc[frame["axis"] == axis, axis]) == set(values)
    svg = (quick / "sweep.svg").read_text(encoding="utf-8")
    assert "<!-- encoder frames T -->" in svg
    assert "<!-- memory, MB -->" in svg
    assert (quick / "sweep.png").stat().st_size > 0


def test_training_steps(quick: Path) -> None:
    frame = pd.read_csv(quick / "training_step.csv").set_index(["subject", "precision"])
    for system in ("ours", "torchaudio"):
        assert frame.loc[(system, "float32"), "speech_seconds_per_second"] > 0
        assert "M parameters" in frame.loc[(system, "float32"), "note"]


def test_two_processes(quick: Path) -> None:
    frame = pd.read_csv(quick / "data_parallel.csv").set_index("subject")
    assert list(frame.index) == ["one", "two"]
    assert (frame["utterances_per_second"] > 0).all()
    assert frame.loc["one", "times_one_process"] == 1
    ratio = frame.loc["one", "min_seconds"] / frame.loc["two", "min_seconds"]
    assert frame.loc["two", "times_one_process"] == pytest.approx(ratio, abs=0.01, rel=0.01)


def test_provenance(quick: Path) -> None:
    document = json.loads((quick / "provenance.json").read_text(encoding="utf-8"))
    assert document["complete"] is False
    assert document["hardware"]["threads"] == 1
    assert {"cpu", "cores", "bf16"} <= set(document["hardware"])
    assert document["packages"]["torch"] == torch.__version__.split("+")[0]
    assert "speechbrain" in document["packages"]
    assert str(ROOT) not in json.dumps(document)


# ---------------------------------------------------------------- pieces


def finished(name: str, *, seconds: float, losses: tuple[float, ...] = (), products: int = 3, megabytes: float = 1):
    subject = Subject(name=name, label=name, prepare=print, value="value" if losses else "", products=products)
    return Measurement(subject=subject, seconds=[seconds], losses=[*losses], peak_bytes=round(1e6 * megabytes))


def test_disagreement_is_refused() -> None:
    right, wrong = (finished("a", seconds=1, losses=(3.0, x)) for x in (2.0, 2.001))
    check_agreement([right, right])
    with pytest.raises(ValueError, match=r"value: a \(float32\) and a \(float32\) differ by 5.0e-04"):
        check_agreement([right, wrong])
    with pytest.raises(ValueError, match="differ by nan"):
        check_agreement([right, finished("a", seconds=1, losses=(3.0, float("nan")))])


def test_goals_and_failures_are_shown() -> None:
    measurements = [
        finished("products_3", seconds=1),
        finished("products_4", seconds=2, products=4),
        finished("ours_transducer", seconds=1.9, megabytes=100),
        finished("ours_divergence", seconds=3.0, products=4, megabytes=200),
        Measurement(subject=loss_subject(SMALL, "plain_divergence", "float32"), failure="out of memory"),
    ]
    frame = lattice_frame([ShapeResults(shape=SMALL, measurements=measurements)], REQUEST).set_index("subject")
    assert frame["times_products"].tolist()[:4] == [1, 1, 1.9, 1.5]
    assert frame.loc["ours_transducer", ["goal", "goal_met"]].tolist() == ["2 × products, 150 MB", "reached"]
    assert frame.loc["ours_divergence", "goal_met"] == "missed"
    text = lattice_text(frame.reset_index(), REQUEST)
    assert "| plain PyTorch: full KL | float32 | – | – | – | – | – | out of memory |" in text


def idle(setting: Setting) -> Task:
    def call() -> torch.Tensor:
        return torch.ones(2)

    return Task(call=call, warm_up=call, note=f"{setting.device} {setting.precision} {torch.get_num_threads()}")


def absent(setting: Setting) -> Task:
    raise Unavailable("not installed")


def killed(setting: Setting) -> Task:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def broken(setting: Setting) -> Task:
    raise SystemExit(3)


def greedy(size: int, setting: Setting) -> Task:
    def call(size: int = size) -> torch.Tensor:
        return torch.ones(size).sum()[None]

    return Task(call=call, warm_up=lambda: call(8))


def test_what_becomes_of_subjects() -> None:
    setting = Setting(device="cpu", threads=1)
    prepared = {"idle": idle, "absent": absent, "killed": killed, "greedy": functools.partial(greedy, 25_000_000)}
    subjects = [Subject(name=name, label=name, prepare=prepare) for name, prepare in prepared.items()]
    results = {result.subject.name: result for result in measure(subjects, setting=setting, effort=QUICK)}
    assert results["idle"].note == "cpu float32 1"
    assert results["idle"].losses == [1, 1]
    assert len(results["idle"].seconds) == 1
    assert results["absent"].failure == "not installed"
    assert results["killed"].failure == "out of memory"
    assert results["greedy"].peak_bytes == pytest.approx(1e8, rel=0.05)
    with pytest.raises(RuntimeError, match=r"broken \(float32\) failed"):
        measure([Subject(name="broken", label="broken", prepare=broken)], setting=setting, effort=QUICK)
