import numpy as np
import pytest

from asr_distill.corpus import effects
from asr_distill.corpus.effects import NOISES, add_noise, make_noise, reverberate, room_impulse_response, telephone_band

RATE = 16_000


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def tone():
    """A second of 440 Hz in 2 s."""
    signal = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    signal[RATE:] = 0
    return signal


def power(signal):
    return np.mean(np.square(signal, dtype=np.float64))


def band_power(signal, low, high):
    spectrum = np.abs(np.fft.rfft(signal)) ** 2
    hertz = np.fft.rfftfreq(len(signal), 1 / RATE)
    return spectrum[(hertz >= low) & (hertz < high)].sum()


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_the_noise_added_has_the_snr_asked_for(tone, rng, kind, snr_db):
    noisy = add_noise(tone, snr_db=snr_db, kind=kind, sampling_rate=RATE, rng=rng)
    assert noisy.dtype == np.float32
    assert 10 * np.log10(power(tone) / power(noisy - tone)) == pytest.approx(snr_db, abs=0.05)


@pytest.mark.parametrize(("kind", "octave_db"), [("pink", -3.0), ("speech_shaped", -9.0), ("babble", -9.0)])
def test_noise_falls_with_frequency_as_its_kind_says(rng, kind, octave_db):
    noise = make_noise(8 * RATE, kind=kind, sampling_rate=RATE, rng=rng)
    density = [band_power(noise, low, 1.1 * low) / low for low in (1000, 4000)]
    assert 10 * np.log10(density[1] / density[0]) / 2 == pytest.approx(octave_db, abs=0.6)


def test_babble_comes_and_goes_and_pink_noise_does_not(rng):
    def level_spread_db(kind):
        noise = make_noise(8 * RATE, kind=kind, sampling_rate=RATE, rng=rng)
        frames = noise[: len(noise) // 800 * 800].reshape(-1, 800)
        return np.std(10 * np.log10(np.mean(frames**2, axis=1)))

    assert level_spread_db("babble") > level_spread_db("speech_shaped") + 1


@pytest.mark.parametrize("rt60", [0.15, 0.3, 0.8])
def test_the_decay_of_an_impulse_response_has_the_rt60_asked_for(rng, rt60):
    response = room_impulse_response(rt60=rt60, direct_to_reverberant_db=6, sampling_rate=RATE, rng=rng)
    tail = response[1:].astype(np.float64)
    decay_db = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # Schroeder's backward integration
    early, late = np.argmax(decay_db < -5), np.argmax(decay_db < -35)
    assert 2 * (late - early) / RATE == pytest.approx(rt60, rel=0.1)


def test_the_direct_sound_stands_above_the_reverberation_as_asked(rng):
    response = room_impulse_response(rt60=0.3, direct_to_reverberant_db=8, sampling_rate=RATE, rng=rng)
    assert response[0] == 1
    assert 10 * np.log10(1 / np.sum(response[1:].astype(np.float64) ** 2)) == pytest.approx(8, abs=0.01)


def test_reverberation_keeps_the_length_and_fills_the_silence_after_the_speech(tone, rng):
    wet = reverberate(tone, rt60=0.3, direct_to_reverberant_db=6, sampling_rate=RATE, rng=rng)
    assert wet.shape == tone.shape
    assert power(wet[RATE : RATE + 800]) > 1e-4
    assert power(wet[-RATE // 2 :]) < 1e-10


def test_reverberation_is_a_convolution_with_the_impulse_response(rng):
    signal = rng.standard_normal(3000).astype(np.float32)
    room = {"rt60": 0.1, "direct_to_reverberant_db": 6, "sampling_rate": RATE}
    response = room_impulse_response(**room, rng=np.random.default_rng(1))
    wet = reverberate(signal, **room, rng=np.random.default_rng(1))
    np.testing.assert_allclose(wet, np.convolve(signal, response)[:3000], atol=1e-4)


def test_a_telephone_passes_300_to_3400_hertz_only(rng):
    noise = rng.standard_normal(4 * RATE).astype(np.float32)
    passed = telephone_band(noise, sampling_rate=RATE)
    assert band_power(passed, 320, 3380) == pytest.approx(band_power(noise, 320, 3380), rel=0.02)
    assert band_power(passed, 0, 280) < 1e-3 * band_power(noise, 0, 280)
    assert band_power(passed, 3420, 8000) < 1e-3 * band_power(noise, 3420, 8000)


def test_pcm16_has_the_level_asked_for_and_dithered_silence(tone, rng):
    samples = effects.to_pcm16(tone, level_db=-26, rng=rng)
    assert samples.dtype == np.int16
    assert 10 * np.log10(power(samples / 32768)) == pytest.approx(-26, abs=0.05)
    assert set(np.unique(samples[RATE + 10 :])) == {-1, 0, 1}


def test_a_level_that_would_clip_is_lowered(tone, rng):
    samples = effects.to_pcm16(tone, level_db=0, rng=rng)
    assert np.abs(samples.astype(int)).max() == pytest.approx(0.95 * 32767, abs=2)


def test_the_same_generator_state_gives_the_same_effect(tone):
    noisy = [
        add_noise(tone, snr_db=10, kind="babble", sampling_rate=RATE, rng=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])


def test_wrong_values_are_refused(tone, rng):
    with pytest.raises(ValueError, match=r"'white'; write one of pink, speech_shaped, babble"):
        make_noise(10, kind="white", sampling_rate=RATE, rng=rng)
    with pytest.raises(ValueError, match="rt60: found 0"):
        reverberate(tone, rt60=0, direct_to_reverberant_db=6, sampling_rate=RATE, rng=rng)
    with pytest.raises(ValueError, match="silence"):
        effects.to_pcm16(np.zeros(5, np.float32), level_db=-20, rng=rng)
