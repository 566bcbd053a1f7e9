"""Speech from Flite, where its libraries are installed."""

import ctypes.util
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from asr_distill.corpus import flite
from asr_distill.corpus.flite import SAMPLING_RATE, TRACTS, VOICES, Voice, speak
from asr_distill.corpus.synthesize import synthesize
from asr_distill.experiment import SyntheticPart

SENTENCE = "HE HAS RIGHTS BECAUSE HE OBTAINED LETTERS FROM THE KING"
PART = {"use": "labelled", "source": "synthetic", "engine": "flite", "accents": list(VOICES), "condition": "mixed"}

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("flite") is None and os.environ.get("ASR_DISTILL_FORBID_SKIPS") != "1",
    reason="libflite1 is not installed",
)


def fundamental(samples):
    """Return the median fundamental frequency in Hz, from the autocorrelation of frames of 50 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 800)[::400]
    loud = frames[np.square(frames).mean(1) > 0.3 * np.square(samples).mean()]
    spectra = np.abs(np.fft.rfft(loud - loud.mean(1, keepdims=True), 2048)) ** 2
    lags = np.fft.irfft(spectra)[:, : SAMPLING_RATE // 60]
    shortest = SAMPLING_RATE // 320
    return SAMPLING_RATE / np.median(lags[:, shortest:].argmax(1) + shortest)


@pytest.mark.parametrize("person", VOICES)
def test_a_voice_says_the_same_whatever_was_said_before(person):
    voice = Voice(person, tract=1.1, rate=150, pitch=50)
    first = speak(SENTENCE, voice=voice)
    speak("HELLO", voice=Voice("awb", tract=0.9, rate=300, pitch=90))
    assert np.array_equal(speak(SENTENCE, voice=voice), first)
    assert first.dtype == np.float32
    assert 0.05 < np.abs(first).max() <= 1


@pytest.mark.parametrize("person", VOICES)
def test_the_rate_is_as_asked_for_whatever_the_tract(person):
    spoken = [speak(SENTENCE, voice=Voice(person, tract, rate=140, pitch=50)) for tract in TRACTS]
    assert len(spoken[0]) == pytest.approx(len(spoken[1]), rel=0.03)
    fast = speak(SENTENCE, voice=Voice(person, TRACTS[0], rate=175, pitch=50))
    assert len(fast) == pytest.approx(len(spoken[0]) * 140 / 175, rel=0.03)


@pytest.mark.parametrize("person", sorted(VOICES.keys() - {"rms"}))
def test_pitch_is_as_asked_for_whatever_the_tract(person):
    spoken = [speak(SENTENCE, voice=Voice(person, tract, rate=140, pitch=50)) for tract in TRACTS]
    assert fundamental(spoken[0]) == pytest.approx(fundamental(spoken[1]), rel=0.05)
    high = speak(SENTENCE, voice=Voice(person, 1.0, rate=140, pitch=80))
    assert fundamental(high) == pytest.approx(fundamental(spoken[0]) * 2**0.5, rel=0.12)


def test_a_part_is_spoken_by_all_its_people_each_in_several_voices(tmp_path):
    part = SyntheticPart.model_validate({**PART, "speakers": 8, "utterances": 16})
    for name in ("one", "two"):
        synthesize({"train": part}, folder=tmp_path / name, seed=1, workers=1 + (name == "two"))
    table = (tmp_path / "one/LibriSpeech/SPEAKERS.TXT").read_text()
    assert table == (tmp_path / "two/LibriSpeech/SPEAKERS.TXT").read_text()
    people = re.findall(r"\| ([FM]) \|.*\| x([\d.]+) +\| accent (\w+),", table)
    assert sorted(person for _, _, person in people) == sorted([*VOICES] * 2)
    assert {sex for sex, _, person in people if person == "slt"} == {"F"}
    assert len({tract for _, tract, _ in people}) == 8
    files = sorted((tmp_path / "one").rglob("*.flac"))
    assert len(files) == 16
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        assert soundfile.info(path).samplerate == SAMPLING_RATE


@pytest.mark.parametrize("changed", [{"rate": 20}, {"pitch": 100}, {"tract": 2.0}, {"accent": "stl"}])
def test_a_voice_that_is_none_is_refused(changed):
    with pytest.raises(ValueError, match=r"found .*; (write|did you mean 'slt')"):
        speak(SENTENCE, voice=replace(Voice("slt", 1.0, rate=150, pitch=50), **changed))


def test_without_its_libraries_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(flite.ctypes, "CDLL", missing)
    with pytest.raises(RuntimeError, match=r"Flite does not load: libflite\.so\.1: not found; install it .*libflite1"):
        flite._load("flite")


def missing(name, **_):
    raise OSError(f"{name}: not found")
