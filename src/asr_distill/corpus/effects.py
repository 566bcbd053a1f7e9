"""What lies between mouth and recording: noise, room reverberation, a telephone's band. Signals are float32 (N,)."""

from collections.abc import Callable

import numpy as np

NOISES = ("pink", "speech_shaped", "babble")
"""Power falling as 1 / f; falling as speech's long-term spectrum; the latter with the syllable rhythm of a crowd."""


def add_noise(
    signal: np.ndarray, *, snr_db: float, kind: str, sampling_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the signal (N,) plus noise whose mean power lies `snr_db` below the signal's."""
    noise = make_noise(len(signal), kind=kind, sampling_rate=sampling_rate, rng=rng)
    return signal + noise * np.float32(_rms(signal) * 10 ** (-snr_db / 20))


def make_noise(num_samples: int, *, kind: str, sampling_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return noise (N,) of one of `NOISES` with a root mean square of 1."""
    if kind not in NOISES:
        raise ValueError(f"kind: found '{kind}'; write one of {', '.join(NOISES)}")
    noise = rng.standard_normal(num_samples, dtype=np.float32)
    noise = _filter(noise, gain=_pink if kind == "pink" else _long_term_speech, sampling_rate=sampling_rate)
    if kind == "babble":
        noise = noise * _syllables(num_samples, sampling_rate=sampling_rate, rng=rng)
    return noise / _rms(noise)


def reverberate(
    signal: np.ndarray, *, rt60: float, direct_to_reverberant_db: float, sampling_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the signal (N,) as heard in a room, its reverberation after the last sample cut off.

    `rt60` is the time in seconds in which reverberation decays by 60 dB.
    """
    response = room_impulse_response(
        rt60=rt60, direct_to_reverberant_db=direct_to_reverberant_db, sampling_rate=sampling_rate, rng=rng
    )
    length = _transform_length(len(signal) + len(response) - 1)
    spectrum = np.fft.rfft(signal, length) * np.fft.rfft(response, length)
    return np.fft.irfft(spectrum, length)[: len(signal)].astype(np.float32)


def room_impulse_response(
    *, rt60: float, direct_to_reverberant_db: float, sampling_rate: int, rng: np.random.Generator
) -> np.ndarray:
    """Return an impulse response (rt60 * sampling_rate,): the direct sound, 1 at time 0, then decaying Gaussian noise.

    The statistical room model of Polack (1988): only the decay is a room's, single early echoes are not modelled.
    """
    if rt60 <= 0:
        raise ValueError(f"rt60: found {rt60}; write seconds above 0, such as 0.2")
    times = np.arange(1, max(2, round(rt60 * sampling_rate))) / sampling_rate
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / rt60)  # an amplitude of 10^-3 is a power of -60 dB
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    return np.concatenate([[1.0], tail]).astype(np.float32)


def telephone_band(signal: np.ndarray, *, sampling_rate: int) -> np.ndarray:
    """Return the signal (N,) within 300 to 3400 Hz, the band of a telephone line (ITU-T G.712)."""
    return _filter(signal, gain=lambda hertz: (hertz >= 300) & (hertz <= 3400), sampling_rate=sampling_rate)


def to_pcm16(signal: np.ndarray, *, level_db: float, rng: np.random.Generator) -> np.ndarray:
    """Return int16 samples (N,) whose root mean square is `level_db` re full scale, less where a peak would clip.

    Rounded with a triangular dither of one step, so that silence is no run of zeros.
    """
    if not np.any(signal):
        raise ValueError("signal: found nothing but silence, which has no level")
    gain = min(10 ** (level_db / 20) / _rms(signal), 0.95 / float(np.abs(signal).max()))
    dither = rng.random(len(signal), dtype=np.float32) - rng.random(len(signal), dtype=np.float32)
    return np.round(signal * np.float32(gain * 32767) + dither).astype(np.int16)


def _pink(hertz: np.ndarray) -> np.ndarray:
    return 1 / np.sqrt(np.maximum(hertz, 50))


def _long_term_speech(hertz: np.ndarray) -> np.ndarray:
    """Amplitude of speech's long-term average spectrum: up to 500 Hz flat, then about -9 dB an octave (Byrne 1994)."""
    return np.where(hertz < 80, 0.1, (np.maximum(hertz, 500) / 500) ** -1.5)


def _syllables(num_samples: int, *, sampling_rate: int, rng: np.random.Generator, talkers: int = 6) -> np.ndarray:
    """Return an envelope (N,): the mean of talkers whose loudness comes and goes 3 to 5 times a second."""
    times = np.arange(num_samples) / sampling_rate
    rates, phases = rng.uniform(3, 5, size=(talkers, 1)), rng.uniform(0, 2 * np.pi, size=(talkers, 1))
    loudness = np.maximum(0, np.sin(2 * np.pi * rates * times + phases))
    return (0.1 + loudness.mean(axis=0)).astype(np.float32)


def _filter(signal: np.ndarray, *, gain: Callable[[np.ndarray], np.ndarray], sampling_rate: int) -> np.ndarray:
    """Multiply each frequency by `gain(hertz)`, without change of phase."""
    length = _transform_length(len(signal))
    hertz = np.fft.rfftfreq(length, 1 / sampling_rate)
    return np.fft.irfft(np.fft.rfft(signal, length) * gain(hertz), length)[: len(signal)].astype(np.float32)


def _transform_length(num_samples: int) -> int:
    """Return the next multiple of 4096, whose small prime factors make the FFT fast."""
    return -(-num_samples // 4096) * 4096


def _rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64))))
