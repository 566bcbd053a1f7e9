"""The study of language-model knowledge at the smoke scale, in the folder of the first study's corpus and tokens."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import copy_workflow, planned_jobs, snakemake

pytestmark = pytest.mark.workflow

CHOICE = ("scale=smoke", "studies=[lm_into_ctc]")
STUDY, RUNS = "results/smoke/lm_into_ctc/core", "work/smoke/lm_into_ctc"


@pytest.fixture(scope="module")
def ctc_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm_into_ctc")
    copy_workflow(folder)
    done = snakemake(folder, *CHOICE)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder


def test_every_row_is_decoded_in_every_way(ctc_run: Path) -> None:
    study = yaml.safe_load((ctc_run / "config/studies/lm_into_ctc.yaml").read_text())
    scores = pd.read_csv(ctc_run / STUDY / "scores.csv")
    ways = {"", "@beam_1", "@beam_10"}
    expected = {run + way for run in study["runs"] for way in ways}
    expected |= {f"{name}@attention" for name, run in study["runs"].items() if "decoder" in run}
    assert set(scores["run"]) == expected
    table = pd.read_csv(ctc_run / STUDY / "tables/table1.csv")
    assert table["run"].tolist() == [row["run"] for row in study["tables"]["table1"]["rows"]]
    assert table["test_other_wer"].notna().all()
    printed = table.set_index("run")["test_other_printed"]
    assert printed["ctc"] == 8.45
    assert printed["interaed_kd_interctc@beam_10"] == 5.36
    claims = pd.read_csv(ctc_run / STUDY / "claims.csv")
    assert set(claims["claim"]) == set(study["claims"])


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
