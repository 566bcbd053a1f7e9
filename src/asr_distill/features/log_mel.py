"""Log-mel filter bank energies, as a Lhotse feature extractor."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torchaudio
from lhotse.features.base import FeatureExtractor, register_extractor
from lhotse.utils import compute_num_frames_from_samples

from asr_distill.experiment import Features

POWER_FLOOR = 1e-8
"""Of the order of what 16-bit quantisation noise leaves in a mel bin, so that digital silence is no outlier."""
LOWEST_FREQUENCY = 20.0
"""Hz; below lies no speech."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogMelConfig:
    """What decides the log-mel features."""

    sampling_rate: int = 16000
    """Hz."""
    mel_bins: int = 80
    frame_shift: float = 0.01
    """Seconds."""
    frame_length: float = 0.025
    """Seconds."""


@register_extractor
class LogMel(FeatureExtractor):
    """Natural logarithm of mel-weighted powers, one row per frame shift: round(duration / shift) rows, float32.

    Frame i is centred at (i + 1/2) shifts and the edges are mirrored (Kaldi's snip_edges=false), as Lhotse expects.
    """

    name = "log_mel"
    config_type = LogMelConfig

    def __init__(self, config: LogMelConfig | None = None):
        super().__init__(config)
        rate = self.config.sampling_rate
        self._shift, self._length = round(self.config.frame_shift * rate), round(self.config.frame_length * rate)
        self._fft = 2 ** (self._length - 1).bit_length()
        self._mel = torchaudio.transforms.MelSpectrogram(
            sample_rate=rate,
            n_fft=self._fft,
            win_length=self._length,
            hop_length=self._shift,
            f_min=LOWEST_FREQUENCY,
            n_mels=self.config.mel_bins,
            power=2.0,
            center=False,
        )

    def extract(self, samples: np.ndarray | torch.Tensor, sampling_rate: int) -> np.ndarray:
        """Return the features (T, F) of one channel of samples (N,) or (1, N) in -1..1."""
        if sampling_rate != self.config.sampling_rate:
            raise ValueError(
                f"sampling rate {sampling_rate} Hz, but features.sampling_rate: {self.config.sampling_rate}"
            )
        waveform = np.asarray(samples, dtype=np.float32).reshape(-1)
        frames = compute_num_frames_from_samples(len(waveform), self.frame_shift, sampling_rate)
        if frames == 0:
            raise ValueError(f"{len(waveform)} samples are too few for a single frame")
        left = (self._fft - self._shift) // 2  # the window sits in the middle of the FFT's span
        right = (frames - 1) * self._shift + self._fft - left - len(waveform)
        padded = np.pad(waveform, (left, right), mode="symmetric")
        with torch.inference_mode():
            power = self._mel(torch.from_numpy(padded))
            return power.clamp_(min=POWER_FLOOR).log_().T.contiguous().numpy()

    @property
    def frame_shift(self) -> float:
        """Seconds from one frame to the next."""
        return self.config.frame_shift

    def feature_dim(self, sampling_rate: int) -> int:
        """Return the number of mel bins."""
        return self.config.mel_bins


def log_mel(settings: Features) -> LogMel:
    """Return the extractor that the section `features` of a scale describes.

    Raises:
        ValueError: where the frame shift is no whole number of samples.
    """
    samples = settings.frame_shift_ms * settings.sampling_rate / 1000
    if samples != round(samples):
        raise ValueError(
            f"features.frame_shift_ms: {settings.frame_shift_ms} ms at {settings.sampling_rate} Hz are {samples} "
            f"samples; write {round(samples) * 1000 / settings.sampling_rate}"
        )
    return LogMel(
        LogMelConfig(
            sampling_rate=settings.sampling_rate,
            mel_bins=settings.mel_bins,
            frame_shift=settings.frame_shift_ms / 1000,
            frame_length=settings.frame_length_ms / 1000,
        )
    )
