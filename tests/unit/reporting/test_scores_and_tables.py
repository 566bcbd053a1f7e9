from __future__ import annotations

import json

import pandas as pd
import pytest
from fake_stages import score_fake
from fake_study import FakeStudy, build_fake_study

from asr_distill.reporting.inputs import read_scores
from asr_distill.reporting.tables import magnitude, with_interval, write_corpus_table, write_tables


def test_scores(fake_study: FakeStudy) -> None:
    score_fake(fake_study)
    scores = read_scores(fake_study.results / "scores.csv")
    errors = pd.read_csv(fake_study.results / "errors.csv")
    assert len(scores) == 5 * 4 * 2
    row = scores[(scores["run"] == "hard") & (scores["part"] == "test-other") & (scores["seed"] == "mean")].iloc[0]
    own = errors[(errors["run"] == "hard") & (errors["part"] == "test-other")]
    assert row["column"] == "test_other"
    assert row["words"] == own["words"].sum()
    assert row["wer"] == pytest.approx(100 * own["errors"].sum() / own["words"].sum(), abs=5e-4)
    assert row["low"] < row["wer"] < row["high"]
    one, mean = (scores[scores["seed"] == seed].drop(columns="seed").reset_index(drop=True) for seed in ("0", "mean"))
    pd.testing.assert_frame_equal(one, mean)


def test_mean_over_seeds(tmp_path) -> None:
    fake = build_fake_study(tmp_path, seeds=(3, 5))
    score_fake(fake)
    scores = read_scores(fake.results / "scores.csv")
    rows = scores[(scores["run"] == "soft") & (scores["part"] == "test-clean")].set_index("seed")
    assert list(rows.index) == ["3", "5", "mean"]
    assert rows.loc["mean", "wer"] == pytest.approx((rows.loc["3", "wer"] + rows.loc["5", "wer"]) / 2, abs=1e-3)
    assert rows.loc["mean", "words"] == rows.loc["3", "words"]


def test_scores_say_which_hypotheses_are_wrong(fake_study: FakeStudy) -> None:
    path = fake_study.runs / "soft/seed0/hypotheses.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"part": "test-clean", "id": "nobody", "text": "", "score": 0.0}) + "\n")
    with pytest.raises(ValueError, match=r"soft/seed0/hypotheses\.jsonl: .*'nobody' of test-clean"):
        score_fake(fake_study)
    path.unlink()
    with pytest.raises(ValueError, match="decode the run 'soft' with seed 0 first"):
        score_fake(fake_study)


def test_one_speaker_gives_no_interval(tmp_path) -> None:
    fake = build_fake_study(tmp_path, speakers=1)
    score_fake(fake)
    assert read_scores(fake.results / "scores.csv")["low"].isna().all()
    write_tables(fake.study, scores=fake.results / "scores.csv", runs=fake.runs, output=fake.results)
    text = (fake.results / "self_training.md").read_text()
    assert "[n/a]" in text
    assert "n/a: one speaker only" in text


def test_tables(fake_study: FakeStudy) -> None:
    score_fake(fake_study)
    scores = fake_study.results / "scores.csv"
    write_tables(fake_study.study, scores=scores, runs=fake_study.runs, output=fake_study.results)
    frame = pd.read_csv(fake_study.results / "self_training.csv", dtype=str, keep_default_na=False)
    quoted, teacher = frame.iloc[0], frame.iloc[1]
    assert (quoted["test_other_printed"], quoted["test_other_wer"], quoted["seeds"]) == ("2.75", "", "")
    assert (teacher["run"], teacher["parameters"], teacher["hours"]) == ("teacher", "1234567", "1.25")
    assert 0 < float(teacher["dev_clean_low"]) < float(teacher["dev_clean_wer"]) < float(teacher["dev_clean_high"])
    text = (fake_study.results / "self_training.md").read_text()
    for expected in (
        "fake",
        "words by 12 speakers",
        "1.23\u00a0M",
        "Speech is synthesised",
        "Greedy search",
        "All rows",
    ):
        assert expected in text
    assert r"E\_teacher \<x\>" in text
    assert r"E\_teacher \textless{}x\textgreater{}" in (fake_study.results / "self_training.tex").read_text()


def test_corpus_table(fake_study: FakeStudy) -> None:
    write_corpus_table(fake_study.study, overview=fake_study.overview, output=fake_study.results)
    assert len(pd.read_csv(fake_study.results / "corpus.csv")) == 6
    assert "| unlab-mixed | unlabelled | 0.04 |" in (fake_study.results / "corpus.md").read_text()
    assert r"\begin{tabular}" in (fake_study.results / "corpus.tex").read_text()


def test_missing_training_summary(fake_study: FakeStudy) -> None:
    score_fake(fake_study)
    path = fake_study.runs / "hard/seed0/training.json"
    path.write_text('{"run": "hard"}')
    arguments = {"scores": fake_study.results / "scores.csv", "runs": fake_study.runs, "output": fake_study.results}
    with pytest.raises(ValueError, match=r"hard/seed0/training\.json: "):
        write_tables(fake_study.study, **arguments)
    path.unlink()
    with pytest.raises(ValueError, match=r"training\.json: is missing"):
        write_tables(fake_study.study, **arguments)


@pytest.mark.parametrize(
    ("number", "text"),
    [("950", "950"), ("612345", "612\u00a0k"), ("1234567", "1.23\u00a0M"), ("600000000", "600\u00a0M")],
)
def test_magnitude(number: str, text: str) -> None:
    assert magnitude(number) == text


def test_with_interval() -> None:
    assert with_interval("8.123", "7.44", "8.951") == "8.1 [7.4, 9.0]"
    assert with_interval("8.123", "nan", "nan") == "8.1 [n/a]"
    assert with_interval("", "", "") == ""
