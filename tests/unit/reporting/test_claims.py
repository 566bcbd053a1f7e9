from __future__ import annotations

import pandas as pd
import pytest
from fake_stages import score_fake
from fake_study import FakeStudy, build_fake_study

from asr_distill.reporting.claims import signed, write_claims
from asr_distill.scoring.verdict import interval_confidence, judge


def decided(fake: FakeStudy) -> pd.DataFrame:
    score_fake(fake)
    write_claims(fake.study, errors=fake.results / "errors.csv", runs=fake.runs, output=fake.results)
    return pd.read_csv(fake.results / "claims.csv", keep_default_na=False)


def test_claims(tmp_path) -> None:
    fake = build_fake_study(tmp_path, utterances=240)
    claims = decided(fake)
    assert list(claims["claim"].value_counts(sort=False)) == [4, 2, 1, 2]
    verdicts = claims.drop_duplicates("claim").set_index("claim")["claim_verdict"]
    assert verdicts["A2"] == "reproduced"
    assert verdicts["A3"] == "not reproduced"
    for row in claims.to_dict("records"):
        assert row["difference"] == pytest.approx(row["left_wer"] - row["right_wer"], abs=2e-3)
        assert row["confidence"] == interval_confidence(row["relation"], confidence=0.95)
        names = {"low": "low", "high": "high", "left": "left_wer", "right": "right_wer"}
        rates = {name: float(row[column]) / 100 for name, column in names.items()}
        assert row["verdict"] == judge(row["relation"], **rates, margin=0.05)


def test_claims_for_people(fake_study: FakeStudy) -> None:
    decided(fake_study)
    for name in ("claims.md", "claims.tex"):
        text = (fake_study.results / name).read_text()
        assert "the intervals cover the test speakers, not the training seeds" in text
        assert "These rules were fixed before any run" in text
        assert "<b>" not in text.replace(r"\<b\>", "")
    assert "hard not \\< teacher" in (fake_study.results / "claims.md").read_text()


def test_claims_with_several_seeds(tmp_path) -> None:
    fake = build_fake_study(tmp_path, seeds=(0, 1))
    assert set(decided(fake)["seeds"]) == {2}
    assert "2 training seeds: the intervals cover" in (fake.results / "claims.md").read_text()


def test_one_speaker_is_inconclusive(tmp_path) -> None:
    fake = build_fake_study(tmp_path, speakers=1)
    assert set(decided(fake)["claim_verdict"]) == {"inconclusive"}
    assert "n/a: one speaker only" in (fake.results / "claims.md").read_text()


@pytest.mark.parametrize(
    ("text", "positive", "shown"),
    [
        ("-0.7 [-1.2, 0.3]", False, "−0.7 [−1.2, 0.3]"),
        ("-0.0 [-0.0, 0.0]", False, "0.0 [0.0, 0.0]"),
        ("-0.05", False, "−0.05"),
        ("-0 %", False, "0 %"),
        ("-10 %", False, "−10 %"),
        ("3.2", True, "+3.2"),
    ],
)
def test_signed(text: str, positive: bool, shown: str) -> None:
    assert signed(text, positive=positive) == shown
