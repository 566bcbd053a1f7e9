"""Claims that a part of a study cannot decide, and what would decide them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asr_distill.experiment import load_experiment, read_yaml
from asr_distill.experiment.loading import Experiment

ROOT = Path(__file__).parents[3]
NAME = "soft_vs_hard"


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return load_experiment({"scale": "smoke", "studies": [NAME]}, root=ROOT)


def test_every_part_of_a_study_knows_all_claims_and_how_many_there_are(experiment: Experiment) -> None:
    everything = set(read_yaml(ROOT / f"config/studies/{NAME}.yaml")["claims"])
    whole = experiment.record(NAME, "complete")
    for selection in experiment.studies[NAME].selections():
        record = experiment.record(NAME, selection)
        assert set(record.study.claims) | set(record.undecided) == everything
        assert not set(record.study.claims) & set(record.undecided)
        assert record.num_claims == whole.num_claims
    assert whole.num_claims == len(whole.study.claims)


def test_a_claim_is_decided_by_the_smallest_part_that_has_its_runs(experiment: Experiment) -> None:
    study = experiment.studies[NAME]
    sizes = {name: study.restricted(tables) for name, tables in study.selections().items()}
    for claim, selection in study.decided_by().items():
        deciding = {name: len(part.runs) for name, part in sizes.items() if study.claims[claim].decidable(part.runs)}
        assert deciding[selection] == min(deciding.values())
    assert study.decided_by()["A10"] == "table10"
    assert experiment.record(NAME, "core").undecided["A10"].decided_by == "table10"


def test_a_claim_whose_runs_no_table_has_does_not_count(experiment: Experiment) -> None:
    study = experiment.studies[NAME]
    tables = {name: table for name, table in study.tables.items() if name != "table3"}
    without = dataclasses.replace(experiment, studies={NAME: study.model_copy(update={"tables": tables})})
    record = without.record(NAME, "core")
    assert record.undecided["A15"].decided_by == ""
    assert record.num_claims == experiment.record(NAME, "core").num_claims - 1
