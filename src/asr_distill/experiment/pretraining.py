"""Self-supervised pre-training of encoders: what is hidden, and by which codes it is asked about."""

from __future__ import annotations

from asr_distill.experiment.base import Fraction, Positive, PositiveInt, Record


class SpanMasking(Record):
    """Which speech is hidden, and behind what; the defaults are those for LibriSpeech of Chiu et al. 2022."""

    probability: Fraction = 0.01
    """That a span begins at a feature frame."""
    span: PositiveInt = 40
    """Feature frames; 400 ms at a frame shift of 10 ms."""
    noise: Positive = 0.1
    """Standard deviation of the noise of mean 0 in the place of what is hidden, beside the features' deviation of 1."""


class Pretraining(Record):
    """BEST-RQ's task; the defaults are those for LibriSpeech of Chiu et al. 2022."""

    codes: PositiveInt = 8192
    """Of a random codebook: classes that the encoder tells apart."""
    code_dim: PositiveInt = 16
    """Numbers of a code."""
    codebooks: PositiveInt = 1
    """Each with a random projection of its own (Zhang et al. 2023, Google USM: 16)."""
    masking: SpanMasking = SpanMasking()
