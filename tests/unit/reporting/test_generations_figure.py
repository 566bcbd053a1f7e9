"""The figure of word error rate by generation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import study_record

from asr_distill.experiment import StudyRecord
from asr_distill.reporting import style
from asr_distill.reporting.captions import TITLES, captions
from asr_distill.reporting.generations import generation_rates, generations_figure

CHAINS = {"Hard targets": ("teacher", "hard", "hard_2", "hard_3"), "Soft targets": ("teacher", "soft", "soft_2")}
WER = {"teacher": 20.0, "hard": 18.0, "hard_2": 17.0, "hard_3": 17.5, "soft": 15.0, "soft_2": 12.0}
"""On clean speech; other speech has ten more."""


def chained(chains: dict[str, tuple[str, ...]] = CHAINS) -> StudyRecord:
    """Return the invented study with generations after its first ones."""
    record = study_record()
    runs = dict(record.study.runs)
    for chain in CHAINS.values():
        for teacher, run in pairwise(chain[1:]):
            runs[run] = runs[chain[1]].model_copy(update={"teacher": teacher})
    study = record.study.model_copy(update={"runs": runs, "generations": chains})
    return record.model_copy(update={"study": study})


@pytest.fixture
def scores() -> pd.DataFrame:
    rows = [
        {"run": run, "seed": seed, "part": part, "wer": wer + more, "low": wer + more - 1, "high": wer + more + 2}
        for run, wer in WER.items()
        for part, more in (("test-clean", 0.0), ("test-other", 10.0))
        for seed, more in (("0", more + 0.5), ("1", more - 0.5), ("mean", more))
    ]
    return pd.DataFrame(rows)


def test_rates_are_means_in_the_order_of_the_chain(scores: pd.DataFrame) -> None:
    rates = generation_rates(chained(), scores=scores).set_index(["chain", "part", "generation"])
    assert len(rates) == 2 * (4 + 3)
    assert rates.loc["Hard targets", "test-clean"]["wer"].tolist() == [20, 18, 17, 17.5]
    assert rates.loc["Soft targets", "test-other"]["wer"].tolist() == [30, 25, 22]
    third = rates.loc["Hard targets", "test-other", 3]
    assert third[["run", "low", "high"]].tolist() == ["hard_3", 26.5, 29.5]


def test_a_panel_per_part_and_a_line_per_chain(scores: pd.DataFrame) -> None:
    figure = generations_figure(chained(), scores=scores)
    panels = figure.get_axes()
    assert [panel.get_ylabel() for panel in panels] == ["WER on test-clean, %", "WER on test-other, %"]
    assert [panel.get_xlabel() for panel in panels] == ["generation", "generation"]
    assert list(panels[0].get_xticks()) == [0, 1, 2, 3]
    hard, soft, teacher = panels[1].get_lines()
    np.testing.assert_allclose(hard.get_ydata(), [30, 28, 27, 27.5])
    np.testing.assert_allclose(soft.get_ydata(), [30, 25, 22])
    assert (teacher.get_xdata(), teacher.get_ydata()) == ([0], [30])
    for line, generations in ((hard, 4), (soft, 3)):
        np.testing.assert_allclose(line.get_xdata(), range(generations), atol=0.1)
    assert not set(hard.get_xdata()[1:]) & set(soft.get_xdata()[1:])  # intervals do not hide each other
    colours = [style.TARGET_COLOURS[kind] for kind in ("hard", "soft", "supervised")]
    assert [line.get_color() for line in (hard, soft, teacher)] == colours
    bars = sorted(tuple(bar[:, 1]) for collection in panels[0].collections for bar in collection.get_segments())
    assert bars == sorted((wer - 1, wer + 2) for wer in WER.values())
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["teacher", "Hard targets", "Soft targets"]


def test_chains_of_one_kind_have_lines_of_their_own(scores: pd.DataFrame) -> None:
    chains = {"all": ("teacher", "hard", "hard_2"), "some": ("teacher", "hard", "hard_2")}
    lines = generations_figure(chained(chains), scores=scores).get_axes()[0].get_lines()[:2]
    assert len({line.get_linestyle() for line in lines}) == 2
    assert len({line.get_color() for line in lines}) == 1


def test_one_speaker_has_no_bars(scores: pd.DataFrame, tmp_path: Path) -> None:
    with style.house_style():
        figure = generations_figure(chained(), scores=scores.assign(low=np.nan, high=np.nan))
        style.save(figure, folder=tmp_path, name="wer_by_generation")
    assert (tmp_path / "wer_by_generation.svg").stat().st_size > 1000


def test_only_studies_with_chains_have_the_figure() -> None:
    assert "wer_by_generation" not in captions(chained({}))
    caption = captions(chained())["wer_by_generation"]
    assert "95 % bootstrap intervals over test speakers; it does not cover the training seed" in caption
    assert "wer_by_generation" in TITLES
