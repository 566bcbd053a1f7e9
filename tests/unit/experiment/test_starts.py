"""Runs that a scale adds for encoders to start from, and mistakes in what it says of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from asr_distill.experiment import load_experiment
from asr_distill.reporting.looks import figure_groups

ROOT = Path(__file__).parents[3]
SPOKEN = {
    "part_set": "spoken",
    "use": "labelled",
    "source": "synthetic",
    "speakers": 2,
    "utterances": 8,
    "accents": ["gmw/en"],
    "text": {"source": "file", "path": "sentences.txt"},
}
START = {"audio": ["spoken"], "phase": "teacher", "augmentation": "none"}


def load(*, start=START, part=SPOKEN, root=ROOT, **values):
    overrides = {"corpus": {"parts": {"spoken": part}}, "start": start}
    return load_experiment({"scale": "smoke", "overrides": overrides, **values}, root=root)


def test_without_starts_nothing_is_added():
    experiment = load_experiment({"scale": "smoke"}, root=ROOT)
    assert not [run for study in experiment.studies.values() for run in study.runs if run.startswith("start")]
    assert "start:" not in experiment.record("soft_vs_hard", "core").to_yaml()


def test_every_transducer_starts_from_one_of_its_size():
    experiment = load()
    runs = experiment.studies["soft_vs_hard"].runs
    starts = [name for name in runs if name.startswith("start")]
    assert starts == ["start_large", "start_small", "start_streaming", "start_large_swish"]
    assert runs["teacher"].initial == runs["self_soft"].initial == "start_large"
    assert runs["small_hard"].initial == "start_small"
    assert runs["streaming_soft"].initial == "start_streaming"
    assert runs["teacher_swish"].initial == "start_large_swish"
    assert runs["self_soft_pretrained"].initial == "pretrained"
    record = experiment.run("soft_vs_hard", "start_large", seed=1)
    assert (record.labelled, record.unlabelled, record.normalised_by) == (("spoken",), (), ("spoken",))
    assert record.run.initial is None
    assert experiment.run("soft_vs_hard", "teacher", seed=1).labelled == ("train-clean",)
    told = [
        text for text in experiment.record("soft_vs_hard", "core").deviations if "synthetic speech (spoken)" in text
    ]
    assert len(told) == 1


def test_a_scale_may_start_from_the_whole_recogniser():
    runs = load(start={**START, "whole": True}).studies["soft_vs_hard"].runs
    assert runs["teacher"].whole_initial
    assert not runs["self_soft_pretrained"].whole_initial
    assert not load().studies["soft_vs_hard"].runs["teacher"].whole_initial
    experiment = load(start={**START, "whole": True})
    assert "whole_initial: true" in experiment.run("soft_vs_hard", "small_soft", seed=0).to_yaml()
    assert "whole_initial" not in experiment.run("soft_vs_hard", "start_small", seed=0).to_yaml()
    told = experiment.record("soft_vs_hard", "core").deviations
    assert len([text for text in told if text.startswith("Recognisers start from ones")]) == 1


def test_what_was_heard_first_may_be_rehearsed():
    experiment = load(start={**START, "rehearsed": 0.25})
    runs = experiment.studies["soft_vs_hard"].runs
    hearing = {name for name, run in runs.items() if run.recogniser == "transducer" and run.rehearsal is not None}
    starts = {name for name in runs if name.startswith("start")}
    assert hearing == {
        name
        for name, run in runs.items()
        if run.recogniser == "transducer" and run.initial in starts and run.labelled_share is None
    }
    assert {"teacher", "small_soft"} <= hearing
    assert runs["hard_half_labelled"].rehearsal is None
    record = experiment.run("soft_vs_hard", "small_soft", seed=0)
    assert record.rehearsed == ("spoken",)
    assert (record.labelled, record.unlabelled) == (("train-clean",), ("small",))
    assert record.heard == ("train-clean", "small", "spoken")
    assert record.normalised_by == ("train-clean",)
    assert record.run.rehearsal.utterances(300) == 100
    assert "rehears" not in load().run("soft_vs_hard", "small_soft", seed=0).to_yaml()
    told = experiment.record("soft_vs_hard", "core").deviations
    assert len([text for text in told if "25 % of the utterances that they hear from then on" in text]) == 1
    assert not [text for text in load().record("soft_vs_hard", "core").deviations if "from then on" in text]


REHEARSAL = {"audio": ["spoken"], "share": 0.5}


@pytest.mark.parametrize(
    ("rehearsal", "part", "corpus", "told"),
    [
        ({**REHEARSAL, "audio": ["spokn"]}, SPOKEN, {}, r"\.audio: no part of the corpus is of spokn; name a set"),
        (REHEARSAL, {**SPOKEN, "use": "unlabelled"}, {}, r"\.audio: 'spoken' of spoken has use: unlabelled, not lab"),
        (REHEARSAL, SPOKEN, {"shard_utterances": 4}, r": speech in shards is heard in their order and none beside it"),
        ({**REHEARSAL, "share": 1.0}, SPOKEN, {}, r"\.share: .*less than 1"),
    ],
)
def test_mistakes_in_a_run_s_rehearsal(tmp_path, rehearsal, part, corpus, told):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    path = tmp_path / "config/studies/soft_vs_hard.yaml"
    study = yaml.safe_load(path.read_text(encoding="utf-8"))
    study["runs"]["teacher"]["rehearsal"] = rehearsal
    study["sets"]["spoken"] = "speech to rehearse"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    overrides = {"corpus": {"parts": {"spoken": part}, **corpus}}
    with pytest.raises(ValueError, match=rf"runs\.teacher\.rehearsal{told}") as error:
        load_experiment({"scale": "smoke", "overrides": overrides, "studies": ["soft_vs_hard"]}, root=tmp_path)
    assert "\n" not in str(error.value)


def test_a_start_is_built_with_what_needs_it_and_no_more():
    study = load().studies["soft_vs_hard"]
    assert {name for name in study.restricted(["table4"]).runs if name.startswith("start")} == {"start_large"}
    assert {name for name in study.restricted(["table5"]).runs if name.startswith("start")} == {
        "start_large",
        "start_small",
    }


def test_starts_are_no_results_in_figures():
    record = load().record("soft_vs_hard", "table3")
    assert "start_large_swish" in record.study.runs
    assert figure_groups(record) == {"all runs": ("teacher", "teacher_swish")}


def test_a_run_that_is_wrong_is_named_itself(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    study = tmp_path / "config/studies/soft_vs_hard.yaml"
    study.write_text(study.read_text().replace("{model: large, phase: teacher,", "{model: lrage, phase: teacher,", 1))
    with pytest.raises(ValueError, match=r"soft_vs_hard\.yaml: runs\.teacher\.model: 'lrage' .* 'large'"):
        load(root=tmp_path)


def test_voices_of_training_speak_no_test_part():
    flite = {**SPOKEN, "engine": "flite", "accents": ["slt"]}
    load(part=flite)
    with pytest.raises(ValueError, match=r"parts\.spoken: engine: Flite has the voices of four people, .* let eSpeak"):
        load(part={**flite, "use": "test"})


def test_a_study_without_transducers_has_no_starts():
    experiment = load(studies=["lm_into_ctc"])
    assert not [name for name in experiment.studies["lm_into_ctc"].runs if name.startswith("start")]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"start": {**START, "audio": ["spokn"]}}, r"start\.audio: 'spokn' is no .* 'spoken'"),
        ({"start": {**START, "phase": "techer"}}, r"start\.phase: 'techer' is no phase.* 'teacher'"),
        ({"start": {**START, "augmentation": "non"}}, r"start\.augmentation: 'non' is no augmentation.* 'none'"),
        ({"start": {**START, "audio": ["news", "domains"]}}, r"start\.audio: 'news' is no"),
        ({"start": {**START, "audio": ["domains_old"]}}, r"start: the study has a set 'domains_old' of its own"),
        ({"start": {**START, "audio": []}}, r"start\.audio: .*at least 1 item"),
        ({"part": {**SPOKEN, "use": "test"}}, r"start\.audio: 'spoken' of 'spoken' has use: test"),
        ({"part": {**SPOKEN, "part_set": None}}, r"corpus\.parts\.spoken\.text: is for parts of a set"),
        ({"part": {**SPOKEN, "text": {"source": "grammar", "lines": 3}}}, r"corpus\.parts\.spoken\.text: .*grammar"),
    ],
)
def test_mistakes(changed, told):
    with pytest.raises(ValueError, match=rf"^config/scales/smoke\.yaml: {told}") as error:
        load(**changed)
    assert "\n" not in str(error.value)
