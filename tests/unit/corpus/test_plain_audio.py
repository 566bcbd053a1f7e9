"""SPHERE files and samples without a header."""

import numpy as np
import pytest
from lhotse import MonoCut
from publishers import RATE, raw, speech, sphere

from asr_distill.corpus.plain_audio import is_plain, plain_recording, read_plain
from asr_distill.corpus.validate import UnusableError, load_samples

SAMPLES = speech(0)


@pytest.mark.parametrize("name", ["a.sph", "a.raw", "A.SPH"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_samples_come_back_in_either_byte_order(tmp_path, name, big_endian):
    path = tmp_path / name
    encode = sphere if name.lower().endswith("sph") else raw
    path.write_bytes(encode(SAMPLES, big_endian=big_endian))
    recording = plain_recording(path, recording_id="r")
    assert (recording.num_samples, recording.sampling_rate, recording.num_channels) == (len(SAMPLES), RATE, 1)
    assert recording.duration == len(SAMPLES) / RATE
    read, rate = read_plain(path)
    assert rate == RATE
    assert np.array_equal(read, SAMPLES[None] / np.float32(2**15))
    piece, _ = read_plain(path, offset=0.1, duration=0.25)
    assert np.array_equal(piece, read[:, 1600:5600])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "does not begin with NIST_1A"),
        (b"RIFF" + bytes(2000), "does not begin with NIST_1A"),
        (sphere(SAMPLES)[:1000], "truncated: its SPHERE header promises 19200 bytes of samples, -24 are there"),
        (sphere(SAMPLES)[:-2], "truncated: its SPHERE header promises 19200 bytes of samples, 19198 are there"),
        (sphere(SAMPLES, promised=10**15), "truncated"),
        (sphere(SAMPLES, **{"sample_rate -i": None}), "tells no sample_rate"),
        (sphere(SAMPLES, promised=0), "tells no sample_count"),
        (
            sphere(SAMPLES, **{"sample_coding -s26": "pcm,embedded-shorten-v2.00"}),
            "compressed .*shorten.*; expand them with",
        ),
    ],
)
def test_a_sphere_file_that_cannot_be_used_says_why(tmp_path, content, fault):
    path = tmp_path / "a.sph"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=fault):
        plain_recording(path, recording_id="r")


def test_no_name_of_a_file_reaches_a_shell(tmp_path):
    path = tmp_path / f"a;touch {tmp_path.name}.sph"
    path.write_bytes(sphere(SAMPLES))
    recording = plain_recording(path, recording_id="r")
    cut = MonoCut(id="r", start=0, duration=recording.duration, channel=0, recording=recording)
    assert load_samples(cut, sampling_rate=RATE).shape == (1, len(SAMPLES))
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_another_rate_is_set_aside(tmp_path):
    path = tmp_path / "a.sph"
    path.write_bytes(sphere(SAMPLES, **{"sample_rate -i": 8000}))
    recording = plain_recording(path, recording_id="r")
    cut = MonoCut(id="r", start=0, duration=recording.duration, channel=0, recording=recording)
    with pytest.raises(UnusableError, match="wrong sampling rate"):
        load_samples(cut, sampling_rate=RATE)


def test_other_names_are_left_to_lhotse():
    names = ("a.wav", "a.flac", "sph", "a.SPH", "b/a.raw")
    assert [name for name in names if is_plain(name)] == ["a.SPH", "b/a.raw"]
