"""The study of language-model knowledge at the smoke scale, in the folder of the first study's corpus and tokens."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from asr_distill.text.normalise import normalise
from conftest import copy_workflow, planned_jobs, snakemake

pytestmark = pytest.mark.workflow

CHOICE = ("scale=smoke", "studies=[lm_into_ctc]")
STUDY, RUNS = "results/smoke/lm_into_ctc/core", "work/smoke/lm_into_ctc"
BEST = "interaed_kd_interctc"


@pytest.fixture(scope="module")
def ctc_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm_into_ctc")
    copy_workflow(folder)
    done = snakemake(folder, *CHOICE)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def test_every_row_is_decoded_in_every_way(ctc_run: Path) -> None:
    record = yaml.safe_load((ctc_run / RUNS / "report/core/study.yaml").read_text())
    study, layers = record["study"], record["scale"]["ctc_models"]["ctc"]["encoder"]["layers"]
    scores = pd.read_csv(ctc_run / STUDY / "scores.csv")
    ways = {"", "@beam_1", "@beam_10", *(f"@layer_{layer}" for layer in range(1, layers))}
    expected = {run + way for run in study["runs"] for way in ways}
    expected |= {f"{name}@attention" for name, run in study["runs"].items() if run["decoder"] != "none"}
    assert set(scores["run"]) == expected
    table = pd.read_csv(ctc_run / STUDY / "tables/table1.csv")
    assert table["run"].tolist() == [row["run"] for row in study["tables"]["table1"]["rows"]]
    assert table["test_other_wer"].notna().all()
    printed = table.set_index("run")["test_other_printed"]
    assert printed["ctc"] == 8.45
    assert printed["interaed_kd_interctc@beam_10"] == 5.36
    claims = pd.read_csv(ctc_run / STUDY / "claims.csv")
    assert set(claims["claim"]) == {*study["claims"], "B7", "B8", "B9"}  # these are not run


def test_what_was_tuned_is_recorded_and_came_from_dev_parts(ctc_run: Path) -> None:
    tuning = pd.read_csv(ctc_run / RUNS / "aed_kd/seed0/searches/tuning.csv")
    assert {"wer/dev-clean", "wer/dev-other"} == {column for column in tuning if column.startswith("wer/")}
    for search, rows in tuning.groupby("search"):
        assert rows["beam_size"].unique().tolist() == [int(search.removeprefix("beam_"))]
        assert rows.groupby("step")["chosen"].sum().to_dict() == {"pruning": 1, "weights": 1}


def test_all_searches_are_timed_in_one_process(ctc_run: Path) -> None:
    timing = json.loads((ctc_run / RUNS / "aed_kd/seed0/decoding.json").read_text())
    assert timing["threads"] == 1
    assert [part["part"] for part in timing["parts"]] == ["dev-clean", "dev-other", "test-clean", "test-other"]
    for part in timing["parts"]:
        assert set(part["seconds"]) == {"features", "encoder", "greedy", "beam_1", "beam_10", "attention"}


def test_real_time_factors_stand_in_table_1_and_among_the_times(ctc_run: Path) -> None:
    timing = json.loads((ctc_run / RUNS / "aed_kd/seed0/decoding.json").read_text())
    parts = [part for part in timing["parts"] if part["part"].startswith("test-")]
    spent = sum(part["seconds"][name] for part in parts for name in ("features", "encoder", "beam_10"))
    expected = spent / sum(part["audio_seconds"] for part in parts)
    table = pd.read_csv(ctc_run / STUDY / "tables/table1.csv").set_index("run")
    assert table.loc["aed_kd@beam_10", "rtf"] == pytest.approx(expected, rel=2e-3)
    assert table.loc["aed_kd@beam_10", "rtf_printed"] == 0.02
    factors = pd.read_csv(ctc_run / STUDY / "times/real_time_factors.csv").set_index(["run", "search"])
    assert factors.loc[("aed_kd", "beam_10"), "end_to_end"] == pytest.approx(expected, rel=1e-4)
    assert ("aed_kd", "attention") in factors.index
    assert ("ctc", "attention") not in factors.index
    assert (ctc_run / STUDY / "times/wer_against_rtf.svg").exists()
    assert (ctc_run / STUDY / "figures/wer_by_layer.svg").exists()
    assert "Real-time factors" in (ctc_run / STUDY / "report.html").read_text(encoding="utf-8")


def test_the_claim_on_speed_is_decided_by_what_was_measured(ctc_run: Path) -> None:
    claims = pd.read_csv(ctc_run / STUDY / "claims.csv")
    speed = claims[claims["claim"] == "B6"].set_index("left")
    assert speed["relation"].to_dict() == {"beam_1": ">= 6 x", "beam_10": ">= 6 x", "attention": ">= 4 x"}
    factors = pd.read_csv(ctc_run / STUDY / "times/real_time_factors.csv").set_index("search")
    for search, row in speed.iterrows():
        ratios = factors.loc[search, "end_to_end_slower"]
        assert len(ratios) == row["runs"] >= 3
        assert ratios.min() <= row["ratio"] <= ratios.max()
        assert row["low"] <= row["ratio"] <= row["high"]
        factor = float(row["relation"].split()[1])
        open_or_no = "inconclusive" if row["high"] >= factor else "not reproduced"
        assert row["verdict"] == ("reproduced" if row["low"] >= factor else open_or_no)


def test_the_exported_recogniser_has_no_decoder(ctc_run: Path) -> None:
    with_decoder, without = (
        json.loads((ctc_run / RUNS / f"{run}/seed0/training.json").read_text()) for run in ("aed_kd", "ctc")
    )
    assert with_decoder["parameters"] == without["parameters"]
    assert (ctc_run / RUNS / "aed_kd/seed0/decoder.safetensors").exists()
    assert not (ctc_run / RUNS / "ctc/seed0/decoder.safetensors").exists()


def test_what_bert_read_and_learnt_is_written_down(ctc_run: Path) -> None:
    about = json.loads((ctc_run / "work/smoke/language_models/bert/bert.json").read_text())
    assert about["steps"] == 6
    counts = json.loads((ctc_run / "work/smoke/language_models/text.json").read_text())
    assert counts["read"] == counts["kept"] + counts["overlapping"] + sum(counts["unspeakable"].values())


def test_samples_follow_the_rule_and_one_sentence_is_drawn(ctc_run: Path) -> None:
    left, right = (transcripts(ctc_run / RUNS / f"{run}/seed0/hypotheses.jsonl") for run in ("ctc", BEST))
    pool = [utterance for utterance in sorted(left) if left[utterance] != right[utterance]] or sorted(left)
    chosen = pool if len(pool) <= 8 else [pool[round(place * (len(pool) - 1) / 7)] for place in range(8)]
    table = pd.read_csv(ctc_run / STUDY / "tables/samples.csv", dtype=str, keep_default_na=False)
    assert table["utterance"].drop_duplicates().tolist() == chosen
    systems = ["Reference", "CTC", "best CTC", "its attention decoder", "BERT, each token masked in turn"]
    assert table["system"].tolist() == systems * len(chosen)
    shown = table[table["system"] == "best CTC"].set_index("utterance")["text"]
    for utterance, text in shown.items():
        assert [word for word in text.upper().split() if word != "***"] == right[utterance].split()
    assert (ctc_run / STUDY / "figures/knowledge.svg").exists()
    assert "`knowledge`" in (ctc_run / STUDY / "figures/captions.md").read_text()
    page = (ctc_run / STUDY / "report.html").read_text(encoding="utf-8")
    assert 'id="samples"' in page
    assert '<figure id="knowledge">' in page


def transcripts(path: Path) -> dict[str, str]:
    """Return the normalised transcripts of the part that samples are taken from."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {line["id"]: normalise(line["text"]) for line in lines if line["part"] == "test-other"}


def test_a_changed_language_model_does_not_touch_the_corpus(ctc_run: Path) -> None:
    path = ctc_run / "config/scales/smoke.yaml"
    before = path.read_text()
    try:
        path.write_text(before.replace("order: 3", "order: 2"))
        jobs = planned_jobs(ctc_run, *CHOICE)
    finally:
        path.write_text(before)
    assert "Estimate the n-gram" in jobs
    assert not [job for job in jobs if job.startswith(("Synthesise", "Check", "Train CTC"))]
