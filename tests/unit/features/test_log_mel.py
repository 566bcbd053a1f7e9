"""Log-mel features."""

import numpy as np
import pytest
import torchaudio
from lhotse.utils import compute_num_frames_from_samples

from asr_distill.experiment import Features
from asr_distill.features.log_mel import LOWEST_FREQUENCY, POWER_FLOOR, log_mel


@pytest.mark.parametrize("samples", [80, 161, 399, 400, 401, 3199, 3200, 16000, 16079, 16080])
def test_shape_is_what_lhotse_expects(samples):
    noise = np.random.default_rng(0).normal(size=(1, samples)).astype(np.float32)
    features = log_mel(Features()).extract(noise, 16000)
    assert features.shape == (compute_num_frames_from_samples(samples, 0.01, 16000), 80)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_against_a_direct_computation():
    rng = np.random.default_rng(0)
    samples = rng.normal(scale=0.1, size=4000)
    features = log_mel(Features()).extract(samples, 16000)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    filters = torchaudio.functional.melscale_fbanks(257, LOWEST_FREQUENCY, 8000.0, 80, 16000).numpy()
    for frame in range(2, 22):
        middle = frame * 160 + 80
        power = np.abs(np.fft.rfft(samples[middle - 200 : middle + 200] * window, n=512)) ** 2
        expected = np.log(np.maximum(power @ filters, POWER_FLOOR))
        np.testing.assert_allclose(features[frame], expected, atol=2e-3)


def test_a_tone_lights_its_mel_bin_and_silence_lies_on_the_floor():
    time = np.arange(16000) / 16000
    features = log_mel(Features()).extract(np.sin(2 * np.pi * 1000 * time), 16000)
    filters = torchaudio.functional.melscale_fbanks(257, LOWEST_FREQUENCY, 8000.0, 80, 16000).numpy()
    assert (features[5:-5].argmax(axis=1) == filters[round(1000 / 31.25)].argmax()).all()
    assert np.allclose(log_mel(Features()).extract(np.zeros(1600), 16000), np.log(POWER_FLOOR))


def test_wrong_rates_and_shifts_are_named():
    with pytest.raises(ValueError, match="8000 Hz"):
        log_mel(Features()).extract(np.zeros(1600), 8000)
    with pytest.raises(ValueError, match="too few"):
        log_mel(Features()).extract(np.zeros(10), 16000)
    with pytest.raises(ValueError, match=r"features.frame_shift_ms: 10.03"):
        log_mel(Features(frame_shift_ms=10.03))
