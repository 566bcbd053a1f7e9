"""The mean over parts of a word error rate, and its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from asr_distill.scoring.significance import ONE_SPEAKER, SHARED_SPEAKERS, mean_wer_interval, wer_interval


def part(name: str, errors: list[list[int]], *, words: tuple[int, ...]) -> pd.DataFrame:
    """Return one utterance per speaker and seed, with errors (seeds, speakers) and words (speakers,)."""
    rows = [
        {"seed": seed, "speaker": f"{name}{speaker}", "words": words[speaker], "errors": number}
        for seed, of_seed in enumerate(errors)
        for speaker, number in enumerate(of_seed)
    ]
    return pd.DataFrame(rows)


def test_parts_count_alike_whatever_their_size() -> None:
    small, large = part("a", [[1, 3]], words=(10, 10)), part("b", [[0, 300]], words=(500, 500))
    found = mean_wer_interval([small, large], rng=np.random.default_rng(0))
    assert found.wer == pytest.approx((4 / 20 + 300 / 1000) / 2)
    assert found.low < found.wer < found.high


def test_replicates_equal_a_slow_loop() -> None:
    parts = [
        part("a", [[1, 4, 2], [2, 5, 0]], words=(10, 20, 15)),
        part("b", [[3, 1], [0, 6]], words=(12, 8)),
    ]
    found = mean_wer_interval(parts, rng=np.random.default_rng(0), replicates=199, confidence=0.9)
    rng = np.random.default_rng(0)
    seeds = rng.multinomial(1, [0.5, 0.5], size=199)  # one of two is drawn, for both parts
    of_part = [rng.multinomial(n - 1, np.full(n, 1 / n), size=199) for n in (3, 2)]
    means = []
    for replicate in range(199):
        (seed,) = np.flatnonzero(seeds[replicate])
        rates = []
        for frame, draws in zip(parts, of_part, strict=True):
            own = frame[frame["seed"] == seed]
            rates.append((own["errors"] * draws[replicate]).sum() / (own["words"] * draws[replicate]).sum())
        means.append(sum(rates) / 2)
    assert (found.low, found.high) == pytest.approx((sorted(means)[9], sorted(means)[-10]))  # 5 % of 200


def test_the_mean_of_independent_parts_is_surer_than_each() -> None:
    rng = np.random.default_rng(5)
    parts = [
        part(name, [list(rng.poisson(20, size=30) + rng.integers(0, 20, size=30))], words=(100,) * 30)
        for name in "abcd"
    ]
    single = [wer_interval(frame, rng=np.random.default_rng(1)) for frame in parts]
    found = mean_wer_interval(parts, rng=np.random.default_rng(1))
    expected = np.mean([one.high - one.low for one in single]) / 2  # the standard error of a mean of four
    assert found.high - found.low == pytest.approx(expected, rel=0.15)


def test_no_interval_where_speakers_are_few_or_shared() -> None:
    two, one = part("a", [[1, 3]], words=(10, 10)), part("b", [[2]], words=(10,))
    found = mean_wer_interval([two, one], rng=np.random.default_rng(0))
    assert found.reason == ONE_SPEAKER
    assert np.isnan(found.low)
    shared = mean_wer_interval([two, part("a", [[0, 5]], words=(10, 10))], rng=np.random.default_rng(0))
    assert shared.reason == SHARED_SPEAKERS
    assert (shared.wer, np.isnan(shared.high)) == (pytest.approx((4 / 20 + 5 / 20) / 2), True)


def test_parts_need_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="the same seeds on all of them"):
        mean_wer_interval(
            [part("a", [[1, 3]], words=(10, 10)), part("b", [[1, 3], [0, 0]], words=(10, 10))],
            rng=np.random.default_rng(0),
        )
