"""What one can listen to in a report: which utterances, their sound, and what systems made of them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_stages import report_only
from fake_study import FakeStudy, build_fake_study, study_record
from lhotse import CutSet, MonoCut, Recording

from asr_distill.decoding.choice import evenly_spaced
from asr_distill.experiment import StudyRecord, load_experiment
from asr_distill.reporting.listening import read_examples, write_listening

ROOT = Path(__file__).parents[3]
LISTENING = {"systems": {"Teacher": "teacher", "Soft <b>": "soft"}, "utterances": 2}
CHOSEN = ["0000", "0095"]


def audible_record() -> StudyRecord:
    values = study_record(seeds=(3, 4)).model_dump(mode="json")
    return StudyRecord.model_validate(values | {"study": values["study"] | {"listening": LISTENING}})


@pytest.fixture
def fake(tmp_path: Path) -> FakeStudy:
    fake = build_fake_study(tmp_path, record=audible_record(), seeds=(3, 4))
    for part in ("test-clean", "test-other"):
        add_audio(fake, part)
    return fake


def add_audio(fake: FakeStudy, part: str) -> None:
    folder = fake.scale_work / "corpus" / part
    cuts = []
    for number, name in enumerate(CHOSEN):
        path = folder / f"{name}.wav"
        tone = 0.2 * np.sin(np.arange(3200 * (number + 1)) * 0.3)
        soundfile.write(path, tone, 16000)
        recording = Recording.from_file(path, recording_id=f"{part}-{name}")
        cuts.append(MonoCut(recording.id, start=0, duration=recording.duration, channel=0, recording=recording))
    CutSet.from_cuts(cuts).to_file(folder / "cuts.jsonl.gz")


def listen(fake: FakeStudy) -> Path:
    output = fake.root / "listening.json"
    write_listening(fake.record, corpus=fake.scale_work / "corpus", runs=fake.runs, output=output)
    return output


def test_utterances_are_chosen_by_their_ids_alone(fake: FakeStudy) -> None:
    examples = read_examples(listen(fake))
    assert [(example.part, example.grid.name) for example in examples] == [
        (part, f"{part}-{name}") for part in ("test-clean", "test-other") for name in CHOSEN
    ]
    assert [len(example.grid.rows) for example in examples] == [3] * 4


def test_the_sound_is_that_of_the_corpus(fake: FakeStudy) -> None:
    for found, number in zip(json.loads(listen(fake).read_text()), [0, 1, 0, 1], strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found["flac"])))
        assert (rate, len(samples)) == (16000, 3200 * (number + 1))
        assert np.allclose(samples, 0.2 * np.sin(np.arange(len(samples)) * 0.3), atol=1e-4)


def test_transcripts_are_those_of_the_first_seed(fake: FakeStudy) -> None:
    example = read_examples(listen(fake))[0]
    lines = (fake.runs / "soft/seed3/hypotheses.jsonl").read_text().splitlines()
    own = next(line for line in map(json.loads, lines) if line["id"] == example.grid.name)
    assert [row[0] for row in example.grid.rows] == ["Reference", "Teacher", "Soft <b>"]
    shown = example.grid.rows[2][1].replace("***", "").lower().split()
    assert shown == own["text"].lower().split()


def test_audio_that_is_gone_is_left_out_and_told(fake: FakeStudy, reported: FakeStudy) -> None:
    (fake.scale_work / "corpus/test-clean/0095.wav").unlink()
    examples = read_examples(listen(fake))
    assert [bool(example.sound) for example in examples] == [True, False, True, True]


def test_the_report_plays_them(reported_copy: FakeStudy, fake: FakeStudy) -> None:
    (fake.scale_work / "corpus/test-clean/0095.wav").unlink()
    shown = reported_copy.study
    shown.write_text(audible_record().model_copy(update={"seeds": (0,)}).to_yaml())
    report_only(reported_copy, listening=listen(fake))
    page = (reported_copy.results / "report.html").read_text()
    assert page.count("<audio controls") == 3
    assert page.count("data:audio/flac;base64,") == 3
    assert page.count("Its audio was not there") == 1
    assert "Soft &lt;b&gt;" in page
    assert '<a href="#listen">' in page
    report_only(reported_copy)
    assert "<audio" not in (reported_copy.results / "report.html").read_text()


def test_evenly_spaced() -> None:
    names = [f"{n:02d}" for n in range(11)]
    assert evenly_spaced(names, 3) == ["00", "05", "10"]
    assert evenly_spaced(names, 1) == ["00"]
    assert evenly_spaced(names[:2], 5) == ["00", "01"]
    assert evenly_spaced([], 5) == []


def test_systems_are_runs_of_the_study_and_are_left_out_with_them() -> None:
    study = load_experiment({"scale": "smoke"}, root=ROOT).studies["soft_vs_hard"]
    assert set(study.restricted(["table4"]).listening.systems.values()) == {"teacher", "self_hard", "self_soft"}
    assert study.restricted(["table7"]).listening is None


def test_a_misspelt_run_is_told_at_scales_that_lack_some_too(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    study = tmp_path / "config/studies/soft_vs_hard.yaml"
    study.write_text(study.read_text().replace("    Teacher: teacher\n", "    Teacher: techer\n"))
    with pytest.raises(ValueError, match=r"listening\.systems: 'techer' .* 'teacher'"):
        load_experiment({"scale": "an4"}, root=tmp_path)
