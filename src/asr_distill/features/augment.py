"""Augmentation of padded batches of log-mel spectrograms: SpecAugment, FreqWarp and FreqNoise.

Layouts: B utterances, T frames, F mel bins. All draws come from `generator`, on its own device, so that a generator on
the CPU gives the same augmentation on every accelerator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr_distill.experiment import Augmentation


def augment(features: Tensor, lengths: Tensor, *, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Return features (B, T, F) warped, multiplied with noise and masked, in this order; the input stays as it is.

    Expects features normalised to mean 0 and padded with 0 behind `lengths` (B,) frames; the padding stays 0.
    """
    if settings.warp:
        features = freq_warp(features, share=settings.warp, generator=generator)
    if settings.noise:
        features = freq_noise(features, deviation=settings.noise, generator=generator)
    if settings.frequency_masks or settings.time_masks:
        features = spec_augment(features, lengths, settings=settings, generator=generator)
    return features


def freq_warp(features: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """FreqWarp: stretch the bins below an anchor and squeeze those above, or the reverse; (B, T, F) to (B, T, F).

    An anchor y ~ U(0, F) moves by dy ~ U(-share F, share F), clipped to (0, F); the axis is warped piecewise linearly
    with its ends, the first and the last bin, fixed (Hwang et al. 2022, sec. 5.4). One draw per utterance, linear
    interpolation between bins.
    """
    batch, _, bins = features.shape
    last = bins - 1
    draws = torch.rand(2, batch, 1, generator=generator, device=generator.device).to(features.device)
    anchor = draws[0] * last
    moved = (anchor + (2 * draws[1] - 1) * share * last).clamp(1e-3, last - 1e-3)
    target = torch.arange(bins, device=features.device)
    below = target * (anchor / moved)
    above = last - (last - target) * ((last - anchor) / (last - moved))
    source = torch.where(target < moved, below, above).clamp(0, last)  # (B, F): where each bin takes its value from
    return _interpolate(features, source)


def freq_noise(features: Tensor, *, deviation: float, generator: torch.Generator) -> Tensor:
    """FreqNoise: multiply every frame of an utterance by f ~ N(1, s) in R^F, s ~ U(0, deviation); (B, T, F).

    Hwang et al. 2022, sec. 5.4, multiply "the log-mel spectrogram". Its zero is arbitrary (the unit of power), so we
    multiply what the encoder sees, the log-mels normalised to mean 0 and standard deviation 1.
    """
    batch, _, bins = features.shape
    sigma = deviation * torch.rand(batch, 1, 1, generator=generator, device=generator.device)
    noise = torch.randn(batch, 1, bins, generator=generator, device=generator.device)
    return features * (1 + sigma * noise).to(features)


def spec_augment(features: Tensor, lengths: Tensor, *, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """SpecAugment without time warping: masks of bins and of frames are set to 0, the mean; (B, T, F).

    Widths are uniform on 0..w, positions uniform on where the mask fits; a time mask is no wider than
    `time_mask_share` of its utterance (Park et al. 2019; 2020, sec. 3 for the share).
    """
    batch, frames, bins = features.shape
    lengths = lengths.to(features.device)
    widest = lengths.new_full((batch,), min(settings.frequency_mask_width, bins))
    full = lengths.new_full((batch,), bins)
    kept_bins = _unmasked(full, widest, size=bins, count=settings.frequency_masks, generator=generator)
    widest = (lengths * settings.time_mask_share).long().clamp(max=settings.time_mask_width)
    kept_frames = _unmasked(lengths, widest, size=frames, count=settings.time_masks, generator=generator)
    return features * kept_bins.to(features)[:, None, :] * kept_frames.to(features)[:, :, None]


def _unmasked(lengths: Tensor, widest: Tensor, *, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return which of `size` positions lie under none of `count` masks within each length: (B, size)."""
    draws = torch.rand(2, len(lengths), count, generator=generator, device=generator.device).to(lengths.device)
    widths = (draws[0] * (widest[:, None] + 1)).long().minimum(widest[:, None])
    room = lengths[:, None] - widths
    starts = (draws[1] * (room + 1)).long().minimum(room)
    positions = torch.arange(size, device=lengths.device)
    under = (positions >= starts[:, :, None]) & (positions < (starts + widths)[:, :, None])
    return ~under.any(dim=1)


def _interpolate(features: Tensor, source: Tensor) -> Tensor:
    """Return features (B, T, F) read at fractional bins `source` (B, F)."""
    lower = source.floor().clamp(max=features.shape[-1] - 2)
    weight = (source - lower).to(features)[:, None, :]
    index = lower.long()[:, None, :].expand_as(features)
    left, right = features.gather(-1, index), features.gather(-1, index + 1)
    return torch.lerp(left, right, weight)
