from __future__ import annotations

import re

import pandas as pd
import pytest
from fake_stages import score_fake
from fake_study import FakeStudy, build_fake_study, study_record

from asr_distill.experiment import StudyRecord, Undecided
from asr_distill.reporting.claims import signed, write_claims
from asr_distill.scoring.verdict import interval_confidence, judge


def decided(fake: FakeStudy) -> pd.DataFrame:
    score_fake(fake)
    write_claims(fake.study, errors=fake.results / "errors.csv", runs=fake.runs, output=fake.results)
    return pd.read_csv(fake.results / "claims.csv", keep_default_na=False)


def with_others(record: StudyRecord, **decided_by: str) -> StudyRecord:
    """Return the study with further claims that the part reported on cannot decide."""
    claim = record.study.claims["A4"].model_copy(update={"statement": "Mixing wins", "reported": "3 < 4"})
    others = {name: Undecided(claim=claim, decided_by=target) for name, target in decided_by.items()}
    return record.model_copy(update={"undecided": others})


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


def test_a_claim_accounts_for_all_claims_of_the_study(tmp_path) -> None:
    """Holm's correction, worked out claim by claim, of the largest p-value, or the smallest times their number."""
    record = with_others(study_record(), A8="table8", A9="complete", A10="")
    claims = decided(build_fake_study(tmp_path, utterances=240, record=record))
    own = claims[claims["claim_verdict"] != "not run"].groupby("claim", sort=False)
    raw = {"reproduced": own["p_reproduced"].agg(lambda p: max(map(float, p)))}
    raw["refuted"] = own["p_refuted"].agg(lambda p: min(1, len(p) * min(map(float, p))))
    found = own.first()
    for kind, p_values in raw.items():
        before = 0.0
        for place, (name, p) in enumerate(p_values.sort_values().items()):
            before = max(before, min(1, (6 - place) * p))  # four claims, A8 and A9; nothing decides A10
            assert float(found.loc[name, f"claim_p_{kind}"]) == pytest.approx(before, abs=2e-5)
    for name, row in found.iterrows():
        if float(row["claim_p_reproduced"]) <= 0.05:
            assert row["claim_verdict"] == "reproduced", name
        else:
            refuted = float(row["claim_p_refuted"]) <= 0.05
            assert row["claim_verdict"] == ("not reproduced" if refuted else "inconclusive"), name
    assert set(found["claim_verdict"]) > {"reproduced", "not reproduced"}


def test_the_rest_of_the_study_changes_no_raw_p_value(tmp_path) -> None:
    record = with_others(study_record(), A8="table8")
    whole = decided(build_fake_study(tmp_path / "whole", record=record))
    rest = {name: Undecided(claim=claim, decided_by="other") for name, claim in record.study.claims.items()}
    study = record.study.model_copy(update={"claims": {"A2": record.study.claims["A2"]}})
    rest = {name: other for name, other in rest.items() if name != "A2"} | record.undecided
    part = record.model_copy(update={"study": study, "undecided": rest})
    alone = decided(build_fake_study(tmp_path / "part", record=part))
    columns = ["left_wer", "difference", "low", "high", "p_reproduced", "p_refuted", "replicates", "verdict"]
    rows = [frame[frame["claim"] == "A2"] for frame in (whole, alone)]
    assert rows[0][columns].values.tolist() == rows[1][columns].values.tolist()
    assert float(rows[1]["claim_p_reproduced"].iloc[0]) >= float(rows[0]["claim_p_reproduced"].iloc[0])
    assert set(alone["claim"]) == set(whole["claim"])


def test_many_claims_leave_none_decided(tmp_path) -> None:
    others = {f"B{number}": "complete" for number in range(60)}
    fake = build_fake_study(tmp_path, record=with_others(study_record(), **others))
    claims = decided(fake)
    changed = claims[claims["claim_verdict"] != claims["uncorrected_verdict"]].drop_duplicates("claim")
    assert len(changed)
    assert set(changed["claim_verdict"]) == {"inconclusive"}
    text = (fake.results / "claims.md").read_text()
    for verdict, own in changed.groupby("uncorrected_verdict"):
        said = f"Inconclusive only because of the number of claims, else {verdict}: {', '.join(own['claim'])}."
        assert said in text


def test_claims_that_are_not_run_say_what_to_run(tmp_path) -> None:
    record = with_others(study_record(), A8="table8", A9="", A10="")
    record = record.model_copy(update={"left_out": {"A10": "the corpus lacks the sets of parts children"}})
    fake = build_fake_study(tmp_path, record=record)
    claims = decided(fake).set_index("claim")
    assert claims.loc[["A8", "A9", "A10"], "to_decide"].tolist() == [
        "snakemake table8",
        "no table of the study has its runs",
        "another scale: the corpus lacks the sets of parts children",
    ]
    row = claims.loc["A8"]
    assert (row["statement"], row["reported"], row["claim_verdict"]) == ("Mixing wins", "3 < 4", "not run")
    text = (fake.results / "claims.md").read_text()
    assert "| A8 | not run | Mixing wins | 3 \\< 4 | – | – | – | – | – | snakemake table8 |" in text
    assert ", 3 not run." in text
    assert text.count("| A8 |") == 1
    assert "all 5 claims of the study" in text


def test_the_ledger_tells_what_was_measured(fake_study: FakeStudy) -> None:
    claims = decided(fake_study)
    rows = claims[claims["claim"] == "A1"].set_index(["part", "right"])
    clean, other = (
        [rows.loc[part, f"{side}_wer"][right] for side, right in (("left", "hard"), ("right", "hard"))]
        + [rows.loc[part, "right_wer"]["teacher"]]
        for part in ("test-clean", "test-other")
    )
    shown = "; ".join(
        f"{part}: soft {soft:.1f}, hard {hard:.1f}, teacher {teacher:.1f}"
        for part, (soft, hard, teacher) in (("test-clean", clean), ("test-other", other))
    )
    assert f"| {shown} |" in (fake_study.results / "claims.md").read_text()
    for row in claims.to_dict("records"):
        assert row["relative"] == pytest.approx(100 * row["difference"] / row["right_wer"], abs=0.05)
        assert row["relative_low"] <= row["relative"] <= row["relative_high"]


def test_one_seed_cannot_tell_what_would_decide(tmp_path) -> None:
    claims = decided(build_fake_study(tmp_path, utterances=240)).drop_duplicates("claim")
    still = claims["claim_verdict"] == "inconclusive"
    assert set(claims[still]["to_decide"]) == {"at least 2 seeds to tell"}
    assert set(claims[~still]["to_decide"]) == {""}
    assert set(claims["seeds_needed"]) == {""}


def test_what_would_decide_an_open_claim(tmp_path) -> None:
    fake = build_fake_study(tmp_path, seeds=(0, 1, 2))
    claims = decided(fake)
    still = claims[claims["claim_verdict"] == "inconclusive"]
    assert set(claims.drop(still.index)["to_decide"]) == {""}
    for _, rows in still.groupby("claim"):
        assert re.fullmatch(
            r"[\d\u202f]+ seeds|[\d.]+ times the test words( and [\d\u202f]+ seeds)?", rows["to_decide"].iloc[0]
        )
        for row in rows.to_dict("records"):
            assert int(row["seeds_needed"]) >= 3
            assert int(row["words_needed"]) >= row["words"]
            assert (
                int(row["seeds_needed"]) > 3
                or int(row["words_needed"]) > row["words"]
                or row["verdict"] != "inconclusive"
            )
    assert len(still)
    assert "A rough guide" in (fake.results / "claims.md").read_text()


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
    claims = decided(fake)
    assert set(claims["claim_verdict"]) == {"inconclusive"}
    assert set(claims["to_decide"]) == {"more test speakers"}
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
