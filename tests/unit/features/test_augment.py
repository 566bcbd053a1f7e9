"""SpecAugment, FreqWarp and FreqNoise."""

import pytest
import torch

from asr_distill.experiment import Augmentation
from asr_distill.features.augment import augment, freq_noise, freq_warp, spec_augment

EVERYTHING = Augmentation(frequency_masks=2, time_masks=10, warp=0.75, noise=0.14)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(*, utterances=4, frames=60, bins=20, seed=1):
    lengths = torch.linspace(frames // 3, frames, utterances).long()
    features = torch.randn(utterances, frames, bins, generator=generator(seed))
    return features * (torch.arange(frames) < lengths[:, None])[:, :, None], lengths


def test_same_seed_same_result_and_input_untouched():
    features, lengths = batch()
    before = features.clone()
    first = augment(features, lengths, settings=EVERYTHING, generator=generator(3))
    assert torch.equal(first, augment(features, lengths, settings=EVERYTHING, generator=generator(3)))
    assert not torch.equal(first, augment(features, lengths, settings=EVERYTHING, generator=generator(4)))
    assert torch.equal(features, before)
    assert first.dtype == features.dtype


def test_padding_stays_zero():
    features, lengths = batch()
    for seed in range(20):
        result = augment(features, lengths, settings=EVERYTHING, generator=generator(seed))
        for row, length in zip(result, lengths, strict=True):
            assert not row[length:].any()


def test_nothing_asked_for_nothing_done():
    features, lengths = batch()
    assert augment(features, lengths, settings=Augmentation(), generator=generator()) is features


@pytest.mark.parametrize("share", [0.1, 0.75, 1.0])
def test_warp_against_a_loop_over_bins(share):
    features, _ = batch(utterances=6)
    result = freq_warp(features, share=share, generator=generator(7))
    draws = torch.rand(2, 6, 1, generator=generator(7)).squeeze(-1).double()
    last = features.shape[-1] - 1
    for utterance in range(6):
        anchor = float(draws[0, utterance]) * last
        shift = (2 * float(draws[1, utterance]) - 1) * share * last
        moved = min(max(anchor + shift, 1e-3), last - 1e-3)
        for target in range(last + 1):
            if target < moved:
                source = target * anchor / moved
            else:
                source = anchor + (target - moved) * (last - anchor) / (last - moved)
            lower = min(int(source), last - 1)
            weight = source - lower
            expected = (1 - weight) * features[utterance, :, lower] + weight * features[utterance, :, lower + 1]
            torch.testing.assert_close(result[utterance, :, target], expected, atol=2e-5, rtol=1e-4)


def test_warp_keeps_the_ends_and_constant_spectra():
    features, _ = batch()
    result = freq_warp(features, share=0.75, generator=generator(5))
    torch.testing.assert_close(result[..., 0], features[..., 0])
    torch.testing.assert_close(result[..., -1], features[..., -1], atol=1e-5, rtol=1e-5)
    constant = torch.ones(3, 5, 20)
    torch.testing.assert_close(freq_warp(constant, share=0.75, generator=generator(5)), constant)


def test_noise_is_the_same_in_all_frames_and_has_the_asked_spread():
    ones = torch.ones(4000, 2, 20)
    factors = freq_noise(ones, deviation=0.14, generator=generator())
    assert torch.equal(factors[:, 0], factors[:, 1])
    assert factors.mean().item() == pytest.approx(1.0, abs=2e-3)
    # s ~ U(0, 0.14): E[s^2] = 0.14^2 / 3
    assert (factors[:, 0] - 1).square().mean().item() == pytest.approx(0.14**2 / 3, rel=0.05)
    deviations = factors[:, 0].std(dim=1)
    assert deviations.min() < 0.02
    assert deviations.max() < 0.14 * 2


def test_masks_are_bounded_by_the_settings_and_reach_them():
    settings = Augmentation(
        frequency_masks=1, frequency_mask_width=5, time_masks=1, time_mask_width=30, time_mask_share=0.25
    )
    frames, bins = 80, 20
    lengths = torch.tensor([80, 40, 4, 1]).repeat(500)
    ones = torch.ones(len(lengths), frames, bins)
    ones *= (torch.arange(frames) < lengths[:, None])[:, :, None]
    result = spec_augment(ones, lengths, settings=settings, generator=generator())
    masked_bins = bins - result.any(dim=1).sum(dim=1)
    masked_frames = lengths - result.any(dim=2).sum(dim=1)
    for length, widest in ((80, 20), (40, 10), (4, 1), (1, 0)):
        assert set(masked_frames[lengths == length].tolist()) == set(range(widest + 1))
    seen_bins = masked_bins[lengths == 80]
    assert set(seen_bins.tolist()) == set(range(6))
    assert set(result.unique().tolist()) == {0.0, 1.0}


def test_many_masks_may_hide_everything_without_error():
    features, lengths = batch(bins=8)
    settings = Augmentation(frequency_masks=9, frequency_mask_width=100, time_masks=50, time_mask_width=1000)
    result = spec_augment(features, lengths, settings=settings, generator=generator())
    assert torch.isfinite(result).all()
