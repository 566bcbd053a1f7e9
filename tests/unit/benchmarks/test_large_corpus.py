"""The benchmark of large corpora on small ones: everything runs, the table is whole. How fast it is, is no test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.large_corpus import EIGHT_H100_HOURS_PER_SECOND, text, write_corpus

ROOT = Path(__file__).parents[3]


def test_the_benchmark_runs(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "benchmarks.large_corpus", "--output", str(tmp_path)]
    command += ["--utterances", "2000", "4000", "--drawn", "1000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    frame = pd.read_csv(tmp_path / "large_corpus.csv")
    assert frame["stage"].tolist() == ["training", "pseudo-labelling"] * 2
    assert frame["utterances"].tolist() == [2000, 2000, 4000, 4000]
    assert (frame[["peak_megabytes", "first_batch_seconds", "hours_per_second"]] > 0).all().all()
    assert frame["hours"].tolist() == pytest.approx([6.6, 6.6, 13.2, 13.2], rel=0.1)
    table = (tmp_path / "large_corpus.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 6
    assert "| training | 2,000 | " in table


def test_growth_is_told():
    row = {"stage": "training", "hours": 1.0, "first_batch_seconds": 1.0, "hours_per_second": 20.0}
    rows = [row | {"utterances": n, "peak_megabytes": m, "resume_seconds": None} for n, m in ((10, 100.0), (99, 104.0))]
    said = text(pd.DataFrame(rows))
    assert "Growth of memory from 10 to 99 utterances: training: +4.0 %." in said
    assert "| training | 99 | 1 | 104 | 1.0 | – | 20.0 |" in said


def test_what_eight_gpus_consume():
    assert pytest.approx(12.2, abs=0.05) == EIGHT_H100_HOURS_PER_SECOND


def test_sizes_are_multiples_of_a_shard(tmp_path):
    with pytest.raises(ValueError, match="--utterances: 2500 is no multiple of 2000; write 2000"):
        write_corpus(tmp_path, 2500)
