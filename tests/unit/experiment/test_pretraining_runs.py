"""Runs that pre-train an encoder, and runs that start from another one's: resolved, and checked beforehand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from asr_distill.experiment import RunRecord, load_experiment, read_yaml, systems

ROOT = Path(__file__).parents[3]
NAMED = {"scale": "smoke", "studies": ["soft_vs_hard"]}
STUDY = "studies/soft_vs_hard"


@pytest.fixture
def change(tmp_path):
    """Return a function that sets a value in a copy of config/, and returns the copy's parent."""
    shutil.copytree(ROOT / "config", tmp_path / "config")

    def set_value(name, keys, value):
        path = tmp_path / "config" / f"{name}.yaml"
        values = json.loads(json.dumps(read_yaml(path)))  # each place its own copy
        place = values
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return tmp_path

    return set_value


def failure(root):
    with pytest.raises(ValueError, match=r"\S") as error:
        load_experiment(NAMED, root=root)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("scale", ["smoke", "mini", "an4"])
def test_pre_training_is_resolved_to_an_encoder_its_speech_and_what_it_is_asked(scale):
    experiment = load_experiment(NAMED | {"scale": scale}, root=ROOT)
    run = experiment.run("soft_vs_hard", "pretrained", seed=5)
    assert RunRecord.model_validate(run.model_dump()) == run
    assert run.model == experiment.scale.models["large"]
    assert run.phase == experiment.scale.phases["pretraining"]
    assert run.pretraining == experiment.scale.pretraining
    assert run.pretraining.masking.model_dump() == {"probability": 0.01, "span": 40, "noise": 0.1}  # Chiu et al. 2022
    assert run.pretraining.codes <= 1024
    student = experiment.run("soft_vs_hard", "self_soft_pretrained", seed=5)
    assert (run.labelled, run.unlabelled) == (student.labelled, student.unlabelled)
    assert run.unlabelled
    assert run.dev == ()
    assert student.pretraining is None


def test_the_codes_are_the_papers_where_a_scale_says_nothing(change):
    root = change("scales/smoke", ("pretraining",), {})
    asked = load_experiment(NAMED, root=root).run("soft_vs_hard", "pretrained", seed=0).pretraining
    assert (asked.codes, asked.codebooks, asked.code_dim) == (8192, 1, 16)


def test_a_pre_trained_student_differs_from_the_other_in_its_beginning_alone():
    experiment = load_experiment(NAMED, root=ROOT)
    random, started = (experiment.run("soft_vs_hard", n, seed=0) for n in ("self_soft", "self_soft_pretrained"))
    assert started.run.initial == "pretrained"
    same = {"name": random.name, "run": started.run.model_copy(update={"initial": None})}
    assert started.model_copy(update=same) == random


def test_table_9_needs_the_pre_training_and_decides_its_claim_without_scoring_it():
    experiment = load_experiment(NAMED, root=ROOT)
    record = experiment.record("soft_vs_hard", "table9")
    scored = {"teacher", "large_supervised", "self_soft", "self_soft_pretrained"}
    assert set(record.study.runs) == scored | {"pretrained"}
    assert set(record.study.recognisers) == set(record.systems()) == scored
    assert set(record.study.claims) == {"A9"}
    assert "pretrained" not in systems(experiment.studies["soft_vs_hard"], experiment.scale)
    assert "pretrained" not in experiment.record("soft_vs_hard", "core").study.runs


def test_whom_a_kept_run_starts_from_is_kept_with_its_teacher(change):
    change(STUDY, ("runs", "small_hard", "initial"), "small_soft")
    root = change(STUDY, ("runs", "small_soft", "teacher"), "self_mixed")
    study = load_experiment(NAMED, root=root).studies["soft_vs_hard"]
    few = study.tables["table5"].model_copy(update={"rows": study.tables["table5"].rows[2:3]})
    part = study.model_copy(update={"tables": {"table5": few}}).restricted(["table5"])
    assert set(part.runs) == {"small_hard", "small_soft", "self_mixed", "teacher"}


@pytest.mark.parametrize("run", ["pretrained", "self_hard", "teacher"])
def test_a_run_starts_from_any_encoder_of_its_size(change, run):
    root = change(STUDY, ("runs", "self_mixed", "initial"), run)
    change("scales/smoke", ("models", "small", "encoder", "dropout"), 0.7)
    change(STUDY, ("runs", "small_hard", "initial"), run)  # small and large differ in dropout alone
    load_experiment(NAMED, root=root)


def test_who_starts_from_a_whole_recogniser_is_of_its_size(change):
    root = change(STUDY, ("runs", "small_hard", "initial"), "self_mixed")
    change(STUDY, ("runs", "small_hard", "whole_initial"), True)
    load_experiment(NAMED, root=root)
    change("scales/smoke", ("models", "small", "joint"), 40)
    with pytest.raises(ValueError, match=r"small_hard\.initial: 'self_mixed' has joint \d+ instead of 40; leave "):
        load_experiment(NAMED, root=root)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("self_soft", "initial"), "pretraind", "self_soft.initial: 'pretraind' is no run of this study; did you mean"),
        (("self_soft", "initial"), "self_soft", "self_soft: runs need each other in a circle: self_soft <- self_soft"),
        (("teacher", "initial"), "self_soft", "in a circle: teacher <- self_soft <- teacher"),
        (("streaming_soft", "initial"), "pretrained", "streaming_soft.initial: 'pretrained' has an encoder with "),
        (("streaming_soft", "initial"), "teacher", "streaming False instead of True, left_context 128 instead of 16, "),
        (("self_soft", "initial"), "teacher_swish", "with activation swish instead of squared_relu; 'self_soft' can"),
        (("self_soft", "whole_initial"), True, "self_soft.initial: whole_initial needs a run to start from; name one"),
        (("self_soft_pretrained", "whole_initial"), True, "'pretrained' pre-trains an encoder alone; leave whole_init"),
        (("self_soft", "initail"), "teacher", "self_soft: unknown key 'initail'; did you mean 'initial'?"),
        (("self_soft", "teacher"), "pretrained", "self_soft.teacher: 'pretrained' is no transducer; name a run"),
        (("pretrained", "model"), "lage", "pretrained.model: 'lage' is no model role in the scale 'smoke'; did you"),
        (("pretrained", "phase"), "pretrainin", "pretrained.phase: 'pretrainin' is no phase in the scale 'smoke'; did"),
        (("pretrained", "audio"), [], "pretrained: audio: is empty; write [labelled], [unlabelled] or both"),
        (("pretrained", "teacher"), "teacher", "pretrained: unknown key 'teacher'; known: "),
        (("pretrained", "augmentation"), "none", "pretrained: unknown key 'augmentation'; known: "),
        (("pretrained", "recogniser"), "best_rk", "recogniser: 'best_rk' is none; did you mean 'best_rq'?"),
    ],
)
def test_mistakes_in_runs_are_one_line(change, keys, value, message):
    found = failure(change(STUDY, ("runs", *keys), value))
    assert message in found
    assert found.startswith("config/studies/soft_vs_hard.yaml: runs.")


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        (("tables", "table9", "rows", 0, "run"), "tables.table9.rows"),
        (("claims", "A9", "comparisons", 0, "left"), "claims.A9.comparisons"),
        (("figures", "Same architecture", 1), "figures.Same architecture"),
        (("lattice", "runs", 0), "lattice.runs"),
    ],
)
def test_no_transcript_is_wanted_of_a_pre_training(change, keys, where):
    message = f"{where}: 'pretrained' pre-trains an encoder and transcribes nothing; leave it out"
    assert failure(change(STUDY, keys, "pretrained")) == f"config/studies/soft_vs_hard.yaml: {message}"


@pytest.mark.parametrize("wrong", [{"codes": 0}, {"codebooks": 0}, {"masking": {"span": 0}}, {"code": 7}])
def test_mistakes_in_a_scales_pre_training(change, wrong):
    found = failure(change("scales/smoke", ("pretraining",), wrong))
    assert found.startswith("config/scales/smoke.yaml: pretraining")
    assert next(iter(wrong)) in found
