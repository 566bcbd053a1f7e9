"""Character error rates: columns of their own where a scale asks for them, and not a byte elsewhere."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from fake_stages import score_fake
from fake_study import FakeStudy, build_fake_study, study_record

from asr_distill.experiment import StudyRecord
from asr_distill.reporting.inputs import read_errors, read_scores
from asr_distill.reporting.tables import write_tables


def reported(root, *, characters: bool) -> FakeStudy:
    scoring = {"replicates": 200} | ({"characters": True} if characters else {})
    values = study_record(seeds=(0, 1)).model_dump()
    values["scale"]["scoring"] = scoring
    fake = build_fake_study(root, seeds=(0, 1), record=StudyRecord.model_validate(values))
    score_fake(fake)
    write_tables(fake.study, scores=fake.results / "scores.csv", runs=fake.runs, output=fake.results / "tables")
    return fake


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[FakeStudy, FakeStudy]:
    folder = tmp_path_factory.mktemp("characters")
    return reported(folder / "with", characters=True), reported(folder / "without", characters=False)


def test_word_error_rates_stay_as_they_are(both):
    asked, plain = (fake.results for fake in both)
    for name, added in (
        ("scores.csv", ["characters", "cer", "cer_low", "cer_high"]),
        ("errors.csv", ["characters", "character_errors"]),
    ):
        table, old = (pd.read_csv(results / name, dtype=str, keep_default_na=False) for results in (asked, plain))
        assert [column for column in table if column not in old] == added
        pd.testing.assert_frame_equal(table.drop(columns=added), old)
    assert "haracter" not in (plain / "tables/self_training.md").read_text()
    assert "cer" not in pd.read_csv(plain / "tables/self_training.csv").columns


def test_rates_are_sums_over_the_part(both):
    asked = both[0]
    scores, errors = read_scores(asked.results / "scores.csv"), read_errors(asked.results / "errors.csv")
    transcripts = [json.loads(line)["text"] for line in asked.references["test-other"].read_text().splitlines()]
    for seed in ("0", "1", "mean"):
        row = scores[(scores[["run", "part", "seed"]] == ["soft", "test-other", seed]).all(axis=1)].iloc[0]
        own = errors[(errors["run"] == "soft") & (errors["part"] == "test-other")]
        own = own if seed == "mean" else own[own["seed"] == int(seed)]
        assert int(row["characters"]) == sum(len(text) for text in transcripts)
        expected = 100 * own["character_errors"].sum() / own["characters"].sum()
        assert float(row["cer"]) == pytest.approx(expected, abs=5e-4)
        assert float(row["cer_low"]) < float(row["cer"]) < float(row["cer_high"])


def test_tables_show_them_on_the_test_parts(both):
    tables = both[0].results / "tables"
    text = (tables / "self_training.md").read_text()
    heads = next(line for line in text.splitlines() if line.startswith("|"))
    assert heads.count("character error rate, ours") == 2
    assert "character error rate, ours test-clean | character error rate, ours test-other" in heads
    assert "the spaces between words included" in text
    frame = pd.read_csv(tables / "self_training.csv", dtype=str, keep_default_na=False).set_index("run")
    scores = read_scores(both[0].results / "scores.csv").set_index(["run", "seed", "part"])
    assert frame.loc["soft", "dev_other_cer"] == f"{float(scores.loc[('soft', 'mean', 'dev-other'), 'cer']):.3f}"
    assert frame.loc["", "dev_other_cer"] == ""


def test_one_speaker_gives_no_interval(tmp_path):
    values = study_record().model_dump()
    values["scale"]["scoring"] = {"replicates": 200, "characters": True}
    fake = build_fake_study(tmp_path, speakers=1, record=StudyRecord.model_validate(values))
    score_fake(fake)
    write_tables(fake.study, scores=fake.results / "scores.csv", runs=fake.runs, output=fake.results)
    row = next(line for line in (fake.results / "self_training.md").read_text().splitlines() if "soft" in line)
    assert row.count("[n/a]") == 6
