"""The figure of word error rate by encoder layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_ctc import LAYERS, build_fake_ctc
from fake_stages import score_fake
from fake_study import FakeStudy

from asr_distill.reporting import style
from asr_distill.reporting.captions import HIGHEST_WER, captions
from asr_distill.reporting.inputs import read_scores
from asr_distill.reporting.layers import layer_rates, layers_figure


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    fake = build_fake_ctc(tmp_path_factory.mktemp("scored"))
    score_fake(fake)
    return fake


def scores(fake: FakeStudy) -> pd.DataFrame:
    return read_scores(fake.results / "scores.csv")


def test_layers_are_scored_like_other_systems(scored: FakeStudy) -> None:
    found = scores(scored)
    assert set(found["run"]) == set(scored.record.systems())
    assert {"ctc@layer_1", "ctc@layer_2"} <= set(found["run"])
    wer = found[found["seed"] == "mean"].set_index(["run", "part"])["wer"]
    rates = layer_rates(scored.record, scores=found).set_index(["run", "part", "layer"])["wer"]
    assert len(rates) == 4 * 2 * LAYERS
    assert rates["bert", "test-other", 2] == wer["bert@layer_2", "test-other"]
    assert rates["bert", "test-other", 3] == wer["bert", "test-other"]


def test_a_line_for_each_run_from_the_first_layer_to_the_final_one(scored: FakeStudy) -> None:
    figure = layers_figure(scored.record, scores=scores(scored))
    axes = np.array(figure.get_axes()).reshape(2, 3)
    assert [panel.get_title(loc="left") or panel.get_title() for panel in axes[:, 0]] == ["Plain", "Intermediate"]
    assert [panel.get_ylabel() for panel in axes[0, :2]] == ["WER on test-clean, %", "WER on test-other, %"]
    rates = layer_rates(scored.record, scores=scores(scored)).set_index(["run", "part"])
    lines = axes[0, 1].get_lines()
    for line, run in zip(lines, ("ctc", "transcript", "bert"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), rates.loc[run, "test-other"]["wer"])
        np.testing.assert_allclose(line.get_xdata(), range(1, LAYERS + 1), atol=0.1)
    assert [line.get_color() for line in lines] == [
        style.TARGET_COLOURS[kind] for kind in ("no decoder", "transcript", "BERT")
    ]
    names = [[text.get_text() for text in row[2].get_legend().get_texts()] for row in axes]
    assert names == [["ctc", "transcript", "bert"], ["bert interctc"]]


def test_the_axis_ends_where_heads_know_nothing(scored: FakeStudy) -> None:
    found = scores(scored)
    untrained = found["run"].str.contains("layer_2")
    found.loc[untrained, ["wer", "low", "high"]] = (300.0, 250.0, 350.0)
    found.loc[found["run"] == "bert", ["wer", "low", "high"]] = (4.0, 2.0, 5.0)
    panel = layers_figure(scored.record, scores=found).get_axes()[0]
    low, high = panel.get_ylim()
    assert high == HIGHEST_WER
    assert 1.5 < low < 2.0
    assert f"ends at {HIGHEST_WER:g} %" in captions(scored.record)["wer_by_layer"]


def test_one_speaker_has_no_bars(tmp_path: Path, scored: FakeStudy) -> None:
    found = scores(scored)
    found[["low", "high"]] = np.nan
    figure = layers_figure(scored.record, scores=found)
    with style.house_style():
        style.save(figure, folder=tmp_path, name="wer_by_layer")
    assert (tmp_path / "wer_by_layer.svg").stat().st_size > 1000


def test_runs_of_one_kind_look_different(scored: FakeStudy) -> None:
    runs = scored.record.study.runs
    many = {f"bert_{number}": runs["bert"] for number in range(9)}
    study = scored.record.study.model_copy(update={"runs": many, "figures": {}})
    record = scored.record.model_copy(update={"study": study})
    rows = scores(scored)
    rows = rows[rows["run"].str.fullmatch("bert(@layer_.*)?")]
    rows = pd.concat(rows.assign(run=rows["run"].str.replace("bert", name)) for name in many)
    lines = layers_figure(record, scores=rows).get_axes()[0].get_lines()
    assert len({(line.get_linestyle(), line.get_fillstyle()) for line in lines}) == 9
