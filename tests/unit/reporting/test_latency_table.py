"""Emission latency from files to table cells, and the figure against word error rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_methods import DELAYS, MORE, WRONG, build_fake_methods, methods_record, read_lines
from fake_stages import report_fake, score_fake
from fake_study import FakeStudy, write_lines

from asr_distill.experiment import StudyRecord
from asr_distill.reporting.captions import captions
from asr_distill.reporting.inputs import read_scores
from asr_distill.reporting.latency import milliseconds, read_latency, write_latency
from asr_distill.reporting.tables import write_tables
from asr_distill.reporting.wer_latency import latency_figure, latency_points

SEEDS = (0, 2)


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    """Return the study of methods with two seeds after all stages; to be read only."""
    fake = build_fake_methods(tmp_path_factory.mktemp("methods"), seeds=SEEDS)
    report_fake(fake)
    return fake


def measure(fake: FakeStudy) -> None:
    """Write scores, latency and tables of a study."""
    score_fake(fake)
    results = fake.results
    write_latency(fake.study, references=fake.references, runs=fake.runs, output=results / "latency.csv")
    files = {"scores": results / "scores.csv", "latency": results / "latency.csv"}
    write_tables(fake.study, runs=fake.runs, output=results, **files)


def right_words(fake: FakeStudy, name: str, part: str, seed: int) -> list[tuple[str, float]]:
    """Return speaker and lateness in milliseconds of every word that a streaming student has right."""
    path = fake.runs / f"streaming_{name}/seed{seed}/emissions.jsonl"
    speakers = {line["id"]: line["speaker"] for line in read_lines(fake.references[part])}
    lines = [line for line in read_lines(path) if line["part"] == part]
    return [
        (speakers[line["id"]], 1000 * (seconds - 0.3 * (place + 1)))
        for line in lines
        for place, (word, seconds) in enumerate(line["words"])
        if word != WRONG
    ]


@pytest.mark.parametrize("name", ["hard", "shift_120"])
def test_latencies_by_hand(methods: FakeStudy, name: str) -> None:
    rows = read_latency(methods.results / "latency.csv").set_index(["run", "part"])
    assert set(rows.index.unique("run")) == {f"streaming_{run}" for run in DELAYS}
    assert set(rows.index.unique("part")) == {"test-clean", "test-other"}
    for part in ("test-clean", "test-other"):
        row = rows.loc[f"streaming_{name}", part]
        found = [word for seed in SEEDS for word in right_words(methods, name, part, seed)]
        spoken = sum(len(line["text"].split()) for line in read_lines(methods.references[part]))
        assert row["words"] == len(found)
        assert row["coverage"] == pytest.approx(100 * len(found) / (2 * spoken), abs=1e-3)
        assert row["latency"] == pytest.approx(np.mean([late for _, late in found]), abs=0.06)
        assert row["latency"] == pytest.approx(DELAYS[name] + 10 + MORE / 12, abs=2)  # one of twelve speakers is late
        values = sorted(late for _, late in found)
        assert row["latency_90"] == pytest.approx(values[-(-9 * len(values) // 10) - 1], abs=0.06)
        assert row["latency_low"] < row["latency"] < row["latency_high"]
        assert (row["seeds"], row["speakers"], row["reason"]) == (2, 12, "")


def test_an_interval_covers_seeds_too(methods: FakeStudy, tmp_path: Path) -> None:
    single = build_fake_methods(tmp_path)
    write_latency(single.study, references=single.references, runs=single.runs, output=tmp_path / "latency.csv")
    widths = []
    for path in (tmp_path / "latency.csv", methods.results / "latency.csv"):
        row = read_latency(path).set_index(["run", "part"]).loc["streaming_sum", "test-clean"]
        widths.append(row["latency_high"] - row["latency_low"])
    assert 0 < widths[0] < 12  # one speaker is 30 ms later
    assert widths[1] > 19  # the second seed is 20 ms later


def test_the_table_shows_latency_of_streaming_rows_alone(methods: FakeStudy) -> None:
    table = pd.read_csv(methods.results / "tables/methods.csv", dtype=str, keep_default_na=False).set_index("run")
    rows = read_latency(methods.results / "latency.csv").set_index(["run", "part"])
    late = table.loc["streaming_hard"]
    for part in ("test-clean", "test-other"):
        for figure in ("latency", "latency_low", "latency_high", "latency_90"):
            assert float(late[f"{part}_{figure}"]) == rows.loc[("streaming_hard", part), figure]
            assert table.loc["hard", f"{part}_{figure}"] == ""
    assert (late["group"], table.loc["teacher", "group"]) == ("Streaming", "")
    assert table.loc["hard", "test_other_printed"] == "2.7"  # a row of another printed table
    text = (methods.results / "tables/methods.md").read_text()
    heads = next(line for line in text.splitlines() if line.startswith("| student"))
    assert "latency on test-other, ms 90 %" in heads
    cells = next(line for line in text.splitlines() if line.startswith("| Streaming | Hard |")).split(" | ")
    shown = rows.loc["streaming_hard", "test-other"]
    value = f"{shown['latency']:.0f} [{shown['latency_low']:.0f}, {shown['latency_high']:.0f}]"
    assert value in cells
    assert "forced alignment of the run “teacher”" in text
    shares = rows["coverage"]
    assert f"{shares.min():.0f} to {shares.max():.0f} % of them" in text
    plain = (methods.results / "tables/weak.md").read_text()
    assert "latency" not in plain
    assert "student |" not in plain


def test_milliseconds() -> None:
    assert milliseconds("183.4", "170.2", "196.6") == "183 [170, 197]"
    assert milliseconds("-12.5", "-20.0", "-0.4") == "−12 [−20, 0]"
    assert milliseconds("183.4", "nan", "nan") == "183 [n/a]"
    assert milliseconds("nan", "nan", "nan") == "n/a"
    assert milliseconds("", "", "") == ""


def test_a_missing_or_foreign_file_is_named(tmp_path: Path) -> None:
    fake = build_fake_methods(tmp_path)
    output = tmp_path / "latency.csv"

    def fails(match: str) -> None:
        with pytest.raises(ValueError, match=match):
            write_latency(fake.study, references=fake.references, runs=fake.runs, output=output)
        assert not output.exists()

    emissions = fake.runs / "streaming_sum/seed0/emissions.jsonl"
    kept = emissions.read_text()
    emissions.unlink()
    fails(r"streaming_sum/seed0/emissions\.jsonl: is missing; decode streaming runs")
    emissions.write_text(kept.replace("test-other-0003", "test-other-nobody"))
    fails(r"streaming_sum/seed0/emissions\.jsonl: hypotheses: 1 without a reference, such as 'test-other-nobody'")
    emissions.write_text(kept)
    (fake.runs / "teacher/seed0/alignment.jsonl").unlink()
    fails(r"teacher/seed0/alignment\.jsonl: is missing; .* align the references first")


def test_where_no_word_is_right_there_is_no_latency_and_nothing_fails(tmp_path: Path) -> None:
    fake = build_fake_methods(tmp_path)
    path = fake.runs / "streaming_soft/seed0/emissions.jsonl"
    write_lines(path, [line | {"words": [[WRONG, 0.5]]} for line in read_lines(path)])
    measure(fake)
    rows = read_latency(fake.results / "latency.csv").set_index(["run", "part"])
    assert np.isnan(rows.loc[("streaming_soft", "test-clean"), "latency"])
    text = (fake.results / "methods.md").read_text()
    assert "| n/a |" in text
    assert "n/a: no word is right, so none has a latency." in text
    scores, latencies = read_scores(fake.results / "scores.csv"), read_latency(fake.results / "latency.csv")
    points = latency_points(fake.record, scores=scores, latencies=latencies)
    assert "streaming_soft" not in set(points["run"])
    assert len(points) == 2 * 5
    for panel in latency_figure(fake.record, scores=scores, latencies=latencies).axes:
        assert [text.get_text() for text in panel.texts] == ["80", "120"]


def test_points_of_the_figure(methods: FakeStudy) -> None:
    scores, latencies = read_scores(methods.results / "scores.csv"), read_latency(methods.results / "latency.csv")
    points = latency_points(methods.record, scores=scores, latencies=latencies).set_index(["part", "run"])
    assert len(points) == 2 * 6
    row = points.loc["test-other", "streaming_shift_120"]
    own = scores[(scores["run"] == "streaming_shift_120") & (scores["part"] == "test-other")].set_index("seed")
    assert (row["wer"], row["wer_low"]) == (own.loc["mean", "wer"], own.loc["mean", "low"])
    assert row["shift"] == 120
    own = latencies[(latencies["run"] == "streaming_shift_120") & (latencies["part"] == "test-other")].iloc[0]
    assert (row["latency"], row["latency_high"]) == (own["latency"], own["latency_high"])
    figure = latency_figure(methods.record, scores=scores, latencies=latencies)
    for panel, part in zip(figure.axes, ("test-clean", "test-other"), strict=True):
        assert panel.get_title() == part
        assert [text.get_text() for text in panel.texts] == ["0", "80", "120"]  # encoder frames of 40 ms
        line = next(line for line in panel.lines if line.get_linestyle() == "-")
        sweep = points.loc[part].loc[["streaming_soft", "streaming_shift_60", "streaming_shift_120"]]
        assert line.get_xdata() == pytest.approx(sweep["latency"].to_numpy(dtype=float))
        assert line.get_ydata() == pytest.approx(sweep["wer"].to_numpy(dtype=float))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[1:] == ["streaming hard", "streaming supervised", "streaming sum"]


def test_the_report_shows_all_of_it(methods: FakeStudy) -> None:
    page = (methods.results / "report.html").read_text()
    assert '<figure id="wer_against_latency">' in page
    assert '<figure id="gain_by_teacher">' in page
    assert "What a student gains from teachers of different quality" in page
    assert "Methods: the best methods" in page
    text = (methods.results / "figures/captions.md").read_text()
    assert "`wer_against_latency`" in text
    assert "forced alignment of “teacher”" in text


def test_beam_search_tells_no_times(tmp_path: Path) -> None:
    values = methods_record().model_dump(mode="json")
    values["scale"]["decoding"]["method"] = "beam"
    record = StudyRecord.model_validate(values)
    assert record.study.measures_latency
    assert record.timed_runs == ()
    fake = build_fake_methods(tmp_path)
    fake.study.write_text(record.to_yaml())
    fake = FakeStudy(root=tmp_path, record=record)
    measure(fake)
    assert read_latency(fake.results / "latency.csv").empty
    assert "no run here tells when it writes a word" in (fake.results / "methods.md").read_text()
    assert "wer_against_latency" in captions(methods_record())
    assert "wer_against_latency" not in captions(record)


def test_without_a_table_of_latency_none_is_read(tmp_path: Path) -> None:
    fake = build_fake_methods(tmp_path)
    record = fake.record.model_copy(update={"study": fake.record.study.restricted(["weak"])})
    assert record.timed_runs == ()
    assert record.study.shift_sweep is None
    fake.study.write_text(record.to_yaml())
    fake = FakeStudy(root=tmp_path, record=record)
    score_fake(fake)
    write_tables(fake.study, scores=fake.results / "scores.csv", runs=fake.runs, output=fake.results)
    assert "latency" not in (fake.results / "weak.md").read_text()
