from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fake_stages import score_fake
from fake_study import PARTS, FakeStudy, build_fake_study

from asr_distill.reporting.captions import captions
from asr_distill.reporting.figures import write_figures
from asr_distill.reporting.times import read_benchmark, times_frame, write_times

NAMES = ("wer_by_target", "learning_curves", "lattice", "augmentation")


def draw(fake: FakeStudy, *, output: Path) -> None:
    scores = fake.results / "scores.csv"
    write_figures(fake.study, scores=scores, runs=fake.runs, illustrations=fake.illustrations, output=output)


@pytest.mark.parametrize("name", NAMES)
def test_drawings(reported: FakeStudy, name: str) -> None:
    text = (reported.results / f"figures/{name}.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "dc:date" not in text
    assert (reported.results / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_captions(reported: FakeStudy, fake_study: FakeStudy) -> None:
    text = (reported.results / "figures/captions.md").read_text()
    assert all(f"`{name}`" in text for name in NAMES)
    assert "Large marks are means over 2 seeds" in text
    assert "95 % bootstrap intervals over test speakers and training seeds" in text
    single = captions(fake_study.record)["wer_by_target"]
    assert "95 % bootstrap intervals over test speakers; it does not cover the training seed" in single
    assert "Large marks" not in single


def test_single_speaker_draws_points_without_bars(tmp_path: Path) -> None:
    fake = build_fake_study(tmp_path, speakers=1)
    score_fake(fake)
    settings = dict(mpl.rcParams)
    draw(fake, output=fake.results)
    assert dict(mpl.rcParams) == settings


def test_missing_arrays_are_named(fake_study: FakeStudy) -> None:
    score_fake(fake_study)
    arrays = dict(np.load(fake_study.illustrations))
    del arrays["soft/blank"]
    np.savez(fake_study.illustrations, **arrays)
    with pytest.raises(ValueError, match=r"illustrations\.npz: lacks soft/blank"):
        draw(fake_study, output=fake_study.results)


def test_times(fake_study: FakeStudy) -> None:
    (fake_study.runs / "soft/seed0/decode.tsv").unlink()
    write_times(
        fake_study.study,
        references=fake_study.references,
        runs=fake_study.runs,
        scores=fake_study.results / "not needed",
        output=fake_study.results / "times",
    )
    frame = pd.read_csv(fake_study.results / "times/times.csv").set_index("run")
    speech = 4 * 96 * 3.5
    hard = frame.loc["hard"]
    assert hard["real_time_factor"] == pytest.approx(hard["decode_seconds"] / speech, abs=1e-4)
    assert np.isnan(frame.loc["soft", "decode_seconds"])
    assert "| soft | 0 | cpu | 75.5 |" in (fake_study.results / "times/times.md").read_text()
    assert (fake_study.results / "times/speed_and_memory.svg").exists()
    silence = dict.fromkeys(PARTS, 0)
    frame = times_frame(fake_study.record, runs=fake_study.runs, speech_seconds=silence)
    assert frame["real_time_factor"].isna().all()


def test_benchmark_that_snakemake_could_not_measure(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("s\th:m:s\tmax_rss\n0.0123\t0:00:00\t-\n")
    found = read_benchmark(path)
    assert found.seconds == pytest.approx(0.0123)
    assert np.isnan(found.megabytes)
    path.write_text("a\tb\n1\t2\n")
    with pytest.raises(ValueError, match="no benchmark file"):
        read_benchmark(path)
