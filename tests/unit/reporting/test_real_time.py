"""Real-time factors of searches: the numbers, their table, the claims on them, and the figure of what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_ctc import build_fake_ctc, ctc_record, timing
from fake_stages import report_fake, score_fake
from fake_study import FakeStudy
from matplotlib.axes import Axes

from asr_distill.experiment import SpeedComparison
from asr_distill.reporting import style
from asr_distill.reporting.claims import write_claims
from asr_distill.reporting.inputs import read_claims, read_scores
from asr_distill.reporting.publish import compare, publish
from asr_distill.reporting.real_time import printed_rtf, real_time_frame, real_time_grid, search_ratio
from asr_distill.reporting.trade_off import trade_off_figure

B6 = {
    "statement": "Greedy search is fast",
    "reported": "0.003 against 0.018",
    "speed": [
        {"slow": "beam_1", "fast": "greedy", "at_least": 1.9},
        {"slow": "beam_10", "fast": "greedy", "at_least": 10},
        {"slow": "attention", "fast": "greedy", "at_least": 3},
    ],
}


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    """Return an invented study of CTC recognisers after all stages, to be read only."""
    fake = build_fake_ctc(tmp_path_factory.mktemp("timed"), seeds=(0, 1), B6=B6)
    report_fake(fake)
    return fake


def frame(fake: FakeStudy) -> pd.DataFrame:
    return real_time_frame(fake.record, runs=fake.runs)


def test_test_parts_are_pooled_and_encoder_and_reading_count(timed: FakeStudy) -> None:
    found = frame(timed)
    assert list(found["search"].unique()) == ["greedy", "beam_1", "beam_10", "attention"]
    assert len(found) == 2 * (3 + 4 + 4 + 4)
    row = found.set_index(["run", "seed", "search"]).loc["bert", 1, "beam_10"]
    # of two parts of 100 s; this run takes 1.2, its second seed twice as long: reading 1, encoder 8, search 111
    assert row["audio_seconds"] == 200
    assert row["alone"] == pytest.approx(1.2 * 2 * 111 / 200)
    assert row["end_to_end"] == pytest.approx(1.2 * 2 * (1 + 8 + 111) / 200)
    assert row["alone_slower"] == pytest.approx(111)
    assert row["end_to_end_slower"] == pytest.approx(120 / 10)
    assert (row["threads"], row["device"], row["batch_seconds"]) == (1, "cpu", 240)


def test_a_row_for_each_search(timed: FakeStudy) -> None:
    grid = real_time_grid(timed.record, frame(timed))
    rows = {row[0]: row[1:] for row in grid.rows}
    # means over seeds are 1.5 times the first seed's; runs take 1, 1, 1.2 and 0.8 of the time
    assert rows["greedy"] == (
        *("0.003", "0.0075 [0.0060, 0.0090]", "0.075 [0.060, 0.090]"),
        *("1.0 [1.0, 1.0]", "1.0 [1.0, 1.0]"),
        *(f"{(1 / 0.06 + 2 / 0.075 + 1 / 0.09) / 4:.1f} [11.1, 16.7]", "4"),
    )
    assert rows["beam 10"][:1] == ("0.02",)
    assert rows["beam 10"][3:5] == ("91.0 [71.0, 111.0]", "10.0 [8.0, 12.0]")
    assert rows["attention"][0] == "0.013"
    assert rows["attention"][-1] == "3"
    said = " ".join((grid.caption, *grid.notes))
    for expected in (
        "test-clean, test-other together",
        "1 thread on cpu",
        "batches of up to 240 s",
        "200 seconds of speech",
        "in one process on the same utterances",
        "computed beforehand and read from storage",
    ):
        assert expected in said


def test_what_the_paper_prints() -> None:
    printed = ctc_record().printed
    assert [printed_rtf(printed, search) for search in ("greedy", "beam_1", "attention", "beam_7")] == [
        *("0.003", "0.018", "0.013", "")
    ]
    assert printed_rtf({"tables": {}}, "attention") == ""


def test_ratio_of_two_searches_over_runs_that_have_both(timed: FakeStudy) -> None:
    slow = SpeedComparison(slow="attention", fast="beam_10", at_least=1)
    found = search_ratio(frame(timed), slow, measure="end_to_end", confidence=0.95)
    assert found.runs == 3
    assert found.ratio == pytest.approx((40**3 / (100 * 120 * 100)) ** (1 / 3))
    assert search_ratio(frame(timed), slow, measure="alone", confidence=0.95).ratio == pytest.approx(
        (31**3 / (91 * 111 * 91)) ** (1 / 3)
    )


def test_claims_on_speed(timed: FakeStudy) -> None:
    claims = read_claims(timed.results / "claims.csv").set_index("left")
    speed = claims[claims["claim"] == "B6"]
    assert dict(speed["verdict"]) == {"beam_1": "reproduced", "beam_10": "inconclusive", "attention": "reproduced"}
    assert set(speed["claim_verdict"]) == {"inconclusive"}
    row = speed.loc["beam_10"]
    # eight ratios, of two seeds each, whose logarithms have this mean and deviation; t = 2.3646 with 7 degrees
    logs = np.log([8, 8, 10, 10, 12, 12, 10, 10])
    width = 2.3646 * logs.std(ddof=1) / np.sqrt(8)
    assert float(row["ratio"]) == pytest.approx(np.exp(logs.mean()), abs=1e-3)
    assert float(row["low"]) == pytest.approx(np.exp(logs.mean() - width), abs=1e-3)
    assert float(row["high"]) == pytest.approx(np.exp(logs.mean() + width), abs=1e-3)
    assert float(row["ratio_alone"]) == pytest.approx((71 * 91 * 111 * 91) ** 0.25, abs=1e-3)
    assert (row["relation"], row["right"], row["runs"], row["left_wer"]) == (">= 10 x", "greedy", "4", "")
    assert (claims.loc["bert", "claim"], claims.loc["bert", "ratio"]) == ("B1", "")
    text = (timed.results / "claims.md").read_text()
    cells = ["2.0 [2.0, 2.0]", "11.0", "95 %", "reproduced", r"\< 0.001", "1.000", "4"]
    assert f"| beam 1 at least 1.9 times as long as greedy | {' | '.join(cells)} |" in text
    assert text.count("| B6 |") == 1 + 3
    assert "## The comparisons of speed" in text


def test_a_claim_on_the_speed_of_two_recognisers_is_open(tmp_path: Path) -> None:
    fake = build_fake_ctc(tmp_path, B6=B6)
    score_fake(fake)
    runs = {name: run for name, run in fake.record.study.runs.items() if name in ("ctc", "bert")}
    study = fake.record.study.model_copy(update={"runs": runs, "figures": {}})
    record = fake.record.model_copy(update={"study": study})
    fake.study.write_text(record.to_yaml())
    write_claims(fake.study, errors=fake.results / "errors.csv", runs=fake.runs, output=fake.results)
    claims = read_claims(fake.results / "claims.csv")
    speed = claims[claims["claim"] == "B6"]
    assert set(speed["verdict"]) == {"inconclusive"}
    assert list(speed["runs"]) == ["2", "2", "1"]
    assert list(speed["low"]) == ["nan"] * 3
    assert list(speed["ratio"]) == ["2.000", f"{96**0.5:.3f}", "4.000"]
    text = (fake.results / "claims.md").read_text()
    assert "2.0 [n/a]" in text
    assert "n/a: 2 runs measured, and an interval needs 3." in text


def test_times_that_differ_are_no_other_results(tmp_path: Path) -> None:
    fake = build_fake_ctc(tmp_path, B6=B6)
    score_fake(fake)
    timing_again(fake)
    (fake.results / "provenance.json").write_text("{}")
    results, published = tmp_path / "results", tmp_path / "published"
    publish(results, published=published, allow_dirty=True)
    name = "fake/lm_into_ctc/core"
    assert compare(results, published=published) == f"{name}: identical"
    timing_again(fake, beam_10=1.03)
    assert compare(results, published=published) == f"{name}: identical but for measured times"
    timing_again(fake, beam_1=0.5)
    assert "claim B6: not reproduced, published inconclusive" in compare(results, published=published)


def timing_again(fake: FakeStudy, **factors: float) -> None:
    """Let some searches take so many times as long as before, and decide the claims again."""
    for path in fake.runs.glob("*/seed0/decoding.json"):
        measured = json.loads(path.read_text())
        for part in measured["parts"]:
            part["seconds"] |= {search: factor * part["seconds"][search] for search, factor in factors.items()}
        path.write_text(json.dumps(measured))
    write_claims(fake.study, errors=fake.results / "errors.csv", runs=fake.runs, output=fake.results)


def test_tables_of_ctc_recognisers_show_real_time_factors(timed: FakeStudy) -> None:
    table = pd.read_csv(timed.results / "tables/table1.csv", dtype=str, keep_default_na=False).set_index("row")
    assert list(table.columns).index("rtf") == list(table.columns).index("hours") - 1
    rtf = table[["rtf_printed", "rtf"]].apply(tuple, axis=1)
    assert rtf["ctc"] == ("0.003", "0.07500")
    assert rtf["bert, beam"] == ("0.02", f"{1.5 * 1.2 * 120 / 200:.3f}")
    assert rtf["bert, decoder"] == ("", f"{1.5 * 1.2 * 40 / 200:.4f}")
    assert rtf["quoted"] == ("0.018", "")
    text = (timed.results / "tables/table1.md").read_text()
    assert "| RTF paper | RTF ours | hours |" in text
    assert "| 0.02 | 0.60 | 1.25 |" in text
    assert "vary from run to run" in text


def test_tables_of_transducers_show_none(reported: FakeStudy) -> None:
    assert "rtf" not in pd.read_csv(reported.results / "tables/self_training.csv")
    assert not (reported.results / "times/real_time_factors.csv").exists()


def test_the_report_shows_them(timed: FakeStudy) -> None:
    page = (timed.results / "report.html").read_text()
    for expected in (
        "<h3>Real-time factors</h3>",
        'id="wer_against_rtf"',
        'id="wer_by_layer"',
        "0.0075 [0.0060, 0.0090]",
    ):
        assert expected in page
    assert "`wer_against_rtf`" in (timed.results / "times/wer_against_rtf.md").read_text()
    saved = pd.read_csv(timed.results / "times/real_time_factors.csv")
    pd.testing.assert_frame_equal(saved, frame(timed), check_exact=False, rtol=1e-5, check_dtype=False)


def points(panel: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return what a panel draws, by marker; the lines that join a run's searches have none."""
    drawn: dict[str, list[tuple[float, float]]] = {}
    for line in panel.get_lines():
        drawn.setdefault(line.get_marker(), []).extend(map(tuple, line.get_xydata()))
    return drawn


def test_trade_off(timed: FakeStudy) -> None:
    scores = read_scores(timed.results / "scores.csv")
    figure = trade_off_figure(timed.record, scores=scores, speeds=frame(timed))
    panels = figure.get_axes()
    assert [panel.get_title(loc="left") or panel.get_title() for panel in panels] == ["test-clean", "test-other"]
    assert {(panel.get_xscale(), panel.get_yscale()) for panel in panels} == {("log", "log")}
    wer = scores[scores["seed"] == "mean"].set_index(["run", "part"])["wer"]
    drawn = points(panels[1])
    assert [len(drawn[marker]) for marker in ("o", "^", "D", "s")] == [4, 4, 4, 3]
    assert drawn["o"][0] == pytest.approx((0.075, wer["ctc", "test-other"]))
    assert drawn["D"][2] == pytest.approx((1.08, wer["bert@beam_10", "test-other"]))
    assert drawn["s"][0] == pytest.approx((0.3, wer["transcript@attention", "test-other"]))
    colours = [line.get_color() for line in panels[0].get_lines() if line.get_marker() == "o"]
    assert colours == [style.TARGET_COLOURS[kind] for kind in ("no decoder", "transcript", "BERT", "BERT")]
    legends = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert legends[0] == ["greedy", "beam 1", "beam 10", "attention"]
    assert legends[1] == [style.TARGET_LABELS[kind] for kind in ("no decoder", "transcript", "BERT")]
    panels[0].figure.canvas.draw()
    shown = [label.get_text() for label in (*panels[0].get_xticklabels(), *panels[0].get_xticklabels(minor=True))]
    assert {"0.1", "1"} <= set(shown)
    assert not [label for label in shown if "10^" in label]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda about: about.pop("device"), r"decoding\.json: .*device.*decode the run again"),
        (lambda about: about["parts"].pop(), "does not tell how long 'features' took on test-other; decode"),
        (lambda about: about["parts"][2]["seconds"].pop("beam_1"), "how long 'beam_1' took on test-clean; decode the"),
        (lambda about: about["parts"][2]["seconds"].update(greedy=0.0), "how long 'greedy' took on test-clean"),
    ],
)
def test_a_run_that_was_not_timed(tmp_path: Path, change, said: str) -> None:
    fake = build_fake_ctc(tmp_path)
    about = timing("transcript")
    change(about)
    (fake.runs / "transcript/seed0/decoding.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=rf"transcript/seed0/decoding\.json: .*{said}" if "json" not in said else said):
        frame(fake)
