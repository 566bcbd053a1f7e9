from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from asr_distill.scoring import significance
from asr_distill.scoring.significance import wer_difference, wer_interval


def utterances(
    rng: np.random.Generator, *, rate: float = 0.1, speakers: int = 12, seeds: int = 1, spread: float = 0.3
) -> pd.DataFrame:
    """Return word errors of eight utterances of each speaker; speakers differ in how hard they are."""
    words = np.random.default_rng(1).integers(5, 15, size=(speakers, 8))
    hardness = rate * np.exp(spread * rng.normal(size=(1, speakers, 1)))
    errors = rng.poisson(np.broadcast_to(words * hardness, (seeds, speakers, 8)))
    index = np.indices(errors.shape).reshape(3, -1)
    columns = {"seed": index[0], "speaker": [f"s{s:02d}" for s in index[1]], "errors": errors.ravel()}
    return pd.DataFrame(columns | {"words": np.broadcast_to(words, errors.shape).ravel()})


def slow_wer(system: pd.DataFrame, *, seeds: list[int], speakers: list[str]) -> float:
    """Return the word error rate of one resampled test set, utterance by utterance."""
    words = errors = 0
    for seed in seeds:
        for speaker in speakers:
            drawn = system[(system["seed"] == seed) & (system["speaker"] == speaker)]
            words += drawn["words"].sum()
            errors += drawn["errors"].sum()
    return errors / words


def test_replicates_equal_a_slow_loop() -> None:
    left, right = (utterances(np.random.default_rng(seed), speakers=4, seeds=3) for seed in (2, 3))
    found = wer_difference(left, right, rng=np.random.default_rng(0), replicates=119)
    rng = np.random.default_rng(0)
    seed_counts = rng.multinomial(2, [1 / 3] * 3, size=119)
    speaker_counts = rng.multinomial(3, [1 / 4] * 4, size=119)
    names = sorted(left["speaker"].unique())
    differences, ratios = [], []
    for of_seeds, of_speakers in zip(seed_counts, speaker_counts, strict=True):
        seeds = [seed for seed, count in enumerate(of_seeds) for _ in range(count)]
        speakers = [name for name, count in zip(names, of_speakers, strict=True) for _ in range(count)]
        rates = [slow_wer(system, seeds=seeds, speakers=speakers) for system in (left, right)]
        differences.append(rates[0] - rates[1])
        ratios.append(rates[0] / rates[1])
    assert (found.low, found.high) == pytest.approx((sorted(differences)[2], sorted(differences)[-3]))  # third of 119
    ratios = sorted(ratio - 1 for ratio in ratios)
    assert (found.relative_low, found.relative_high) == pytest.approx((ratios[2], ratios[-3]))
    assert found.p_below(0.01) == pytest.approx((sum(d >= 0.01 for d in differences) + 1) / 120)
    assert found.p_above(0.01) == pytest.approx((sum(d <= 0.01 for d in differences) + 1) / 120)


def test_point_estimates() -> None:
    left, right = (utterances(np.random.default_rng(seed), seeds=2) for seed in (2, 3))
    found = wer_difference(left, right, rng=np.random.default_rng(0))
    assert found.left == pytest.approx(left["errors"].sum() / left["words"].sum())
    assert found.difference == pytest.approx(found.left - found.right)
    assert found.relative == pytest.approx(found.difference / found.right)
    assert found.relative_low <= found.relative <= found.relative_high
    assert (found.words, found.speakers, found.seeds) == (left["words"].sum() // 2, 12, 2)
    assert found.low <= found.difference <= found.high
    assert wer_interval(left, rng=np.random.default_rng(0)).wer == found.left


def test_sides_swap() -> None:
    left, right = (utterances(np.random.default_rng(seed)) for seed in (2, 3))
    forward = wer_difference(left, right, rng=np.random.default_rng(0))
    backward = wer_difference(right, left, rng=np.random.default_rng(0))
    assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low))
    assert (forward.p_below(0.01), forward.p_above(0.01)) == (backward.p_above(-0.01), backward.p_below(-0.01))


def test_a_system_does_not_differ_from_itself() -> None:
    system = utterances(np.random.default_rng(2))
    found = wer_difference(system, system, rng=np.random.default_rng(0))
    assert (found.difference, found.low, found.high, found.p_below(0), found.p_above(0)) == (0, 0, 0, 1, 1)


def test_pairing_removes_what_speakers_share() -> None:
    rng = np.random.default_rng(0)
    right = utterances(rng, speakers=30, spread=1.0)
    left = right.assign(errors=right["errors"] + (rng.random(len(right)) < 0.1))
    paired = wer_difference(left, right, rng=rng)
    alone = wer_interval(left, rng=rng)
    assert paired.low > 0
    assert paired.high - paired.low < 0.4 * (alone.high - alone.low)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = 0.1 * math.exp(0.3**2 / 2)
    trials = 200
    covered = 0
    for _ in range(trials):
        interval = wer_interval(utterances(rng, speakers=30), rng=rng, replicates=300)
        covered += interval.low <= truth <= interval.high
    assert 0.88 <= covered / trials <= 0.99


def test_difference_is_rarely_significant_under_the_null_with_seeds() -> None:
    rng = np.random.default_rng(0)
    trials, rejected = 150, 0
    for _ in range(trials):
        shared = 0.1 * np.exp(0.3 * rng.normal(size=3))  # luck of the teachers, seed by seed
        systems = [_with_seed_luck(rng, shared * np.exp(0.1 * rng.normal(size=3))) for _ in range(2)]
        found = wer_difference(*systems, rng=rng, replicates=300)
        rejected += 2 * min(found.p_below(0), found.p_above(0)) < 0.05
    assert rejected / trials < 0.12


def _with_seed_luck(rng: np.random.Generator, rates: np.ndarray) -> pd.DataFrame:
    seeds = [utterances(rng, rate=rate, speakers=20, spread=0.1).assign(seed=seed) for seed, rate in enumerate(rates)]
    return pd.concat(seeds)


def test_variance_is_that_of_a_mean_of_three_seeds() -> None:
    """Drawing n - 1 of n makes the bootstrap variance s^2 / n without bias; drawing n would give two thirds of it."""
    system = pd.DataFrame({"seed": [0, 1, 2] * 50, "speaker": np.repeat(np.arange(50), 3), "words": 100})
    system["errors"] = system["seed"].map({0: 10, 1: 20, 2: 30})
    sums = significance.sum_by_speaker(system)
    draws = significance._draw(sums, rng=np.random.default_rng(0), replicates=20000)
    rates = significance._resampled_wer(sums, draws=draws)
    assert rates.var() == pytest.approx(0.1**2 / 3, rel=0.05)


def test_one_speaker_has_no_interval() -> None:
    system = utterances(np.random.default_rng(2), speakers=1)
    interval = wer_interval(system, rng=np.random.default_rng(0))
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)
    assert "one speaker" in interval.reason
    found = wer_difference(system, system, rng=np.random.default_rng(0))
    assert math.isnan(found.low)
    assert (found.p_below(1.0), found.p_above(-1.0)) == (1, 1)
    assert "one speaker" in found.reason


def test_no_words() -> None:
    silent = utterances(np.random.default_rng(2)).assign(words=0)
    with pytest.raises(ValueError, match="no words"):
        wer_interval(silent, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="no words"):
        wer_interval(silent.iloc[:0], rng=np.random.default_rng(0))


def test_wordless_speakers_do_no_harm() -> None:
    system = utterances(np.random.default_rng(2), speakers=3)
    system.loc[system["speaker"] != "s00", ["words", "errors"]] = 0
    interval = wer_interval(system, rng=np.random.default_rng(0))
    assert math.isfinite(interval.low)
    assert interval.low == pytest.approx(interval.wer)


def test_sides_that_do_not_match() -> None:
    left = utterances(np.random.default_rng(2), seeds=2)
    with pytest.raises(ValueError, match="same seeds"):
        wer_difference(left, left[left["seed"] == 0], rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="same utterances"):
        wer_difference(left, left[left["speaker"] != "s03"], rng=np.random.default_rng(0))
    uneven = left[(left["seed"] == 0) | (left["speaker"] != "s03")]
    with pytest.raises(ValueError, match="different utterances"):
        wer_interval(uneven, rng=np.random.default_rng(0))
