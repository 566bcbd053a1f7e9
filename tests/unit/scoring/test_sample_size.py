from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from asr_distill.scoring.sample_size import Size, Spread, aim, needed, spread
from asr_distill.scoring.significance import wer_difference

WORDS = 10_000
"""Of each speaker: so many that counting errors adds next to nothing."""


def systems(
    rng: np.random.Generator,
    *,
    difference: float,
    by_speaker: float,
    by_seed: float,
    rest: float,
    speakers: int,
    seeds: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two systems whose difference has effects of speaker, seed and both with these standard deviations."""
    left = difference + by_speaker * rng.normal(size=(1, speakers)) + by_seed * rng.normal(size=(seeds, 1))
    left = left + rest * rng.normal(size=(seeds, speakers))
    hardness = 0.3 + 0.05 * rng.normal(size=(1, speakers))  # shared by both systems, so it cancels out
    return _frame(hardness + left), _frame(hardness + np.zeros_like(left))


def _frame(rates: np.ndarray) -> pd.DataFrame:
    seeds, speakers = np.indices(rates.shape).reshape(2, -1)
    errors = np.rint(WORDS * rates).astype(int).ravel()
    return pd.DataFrame({"seed": seeds, "speaker": [f"s{s:03d}" for s in speakers], "words": WORDS, "errors": errors})


EFFECTS = {"by_speaker": 0.02, "by_seed": 0.01, "rest": 0.03}


def test_spread_is_found_again() -> None:
    rng = np.random.default_rng(0)
    found = [spread(*systems(rng, difference=0.0, speakers=25, seeds=4, **EFFECTS)) for _ in range(150)]
    assert np.mean([one.speakers for one in found]) == pytest.approx(0.02**2 / 25, rel=0.15)
    assert np.mean([one.seed for one in found]) == pytest.approx(0.01**2 + 3 * 0.03**2 / 25, rel=0.15)
    assert {one.seeds for one in found} == {4}


def test_spread_predicts_the_width_of_the_interval() -> None:
    rng = np.random.default_rng(1)
    found, drawn = [], []
    for _ in range(40):
        pair = systems(rng, difference=0.0, speakers=30, seeds=3, **EFFECTS)
        parts = spread(*pair)
        found.append(parts.speakers + parts.seed / 3)
        drawn.append(wer_difference(*pair, rng=rng, replicates=500).resampled.var())
    assert np.mean(drawn) == pytest.approx(np.mean(found), rel=0.1)


def test_what_speakers_share_between_systems_is_no_spread() -> None:
    none = {"by_speaker": 0.0, "by_seed": 0.0, "rest": 0.0}
    parts = spread(*systems(np.random.default_rng(0), difference=0.02, speakers=10, seeds=3, **none))
    assert math.sqrt(parts.speakers + parts.seed) < 1e-4  # rounding to whole errors


def test_one_seed_cannot_tell() -> None:
    pair = systems(np.random.default_rng(0), difference=0.01, speakers=10, seeds=1, **EFFECTS)
    parts = spread(*pair)
    assert parts.speakers == pytest.approx(
        wer_difference(*pair, rng=np.random.default_rng(0), replicates=20_000).resampled.var(), rel=0.05
    )
    assert math.isnan(parts.seed)
    assert needed(parts, distance=0.01, tail=0.025) is None


def test_one_speaker_has_no_spread() -> None:
    pair = systems(np.random.default_rng(0), difference=0.01, speakers=1, seeds=3, **EFFECTS)
    assert math.isnan(spread(*pair).speakers)
    assert needed(spread(*pair), distance=0.01, tail=0.025) is None


@pytest.mark.parametrize(
    ("speakers", "seed", "size"),
    [
        # The interval may have a variance of 4 at z = 1.96 and a distance of 3.92.
        (2.0, 6.1, Size(seeds=4, words=1.0)),  # 2 + 6.1 / 4 <= 4 < 2 + 6.1 / 3
        (3.9, 6.1, Size(seeds=61, words=1.0)),
        (8.0, 4.0, Size(seeds=2, words=4.0)),  # 8 / 4 + 4 / 2 = 4
        (12.0, 2.0, Size(seeds=2, words=4.0)),  # 12 / 4 + 2 / 2
        (12.0, 7.0, Size(seeds=4, words=6.0)),  # both too wide: 2 each, 12 / 6 + 7 / 4
    ],
)
def test_needed(speakers: float, seed: float, size: Size) -> None:
    found = needed(Spread(speakers=speakers, seed=seed, seeds=2), distance=2 * 1.959964, tail=0.025)
    assert found is not None
    assert found.seeds == size.seeds
    assert found.words == pytest.approx(size.words, rel=1e-5)


def test_what_is_needed_decides_every_second_time() -> None:
    """With the true spread, two systems that differ by 0.015 are told apart in half of the trials at that size."""
    effects = {"by_speaker": 0.02, "by_seed": 0.015, "rest": 0.02}
    parts = Spread(speakers=0.02**2 / 30, seed=0.015**2 + 3 * 0.02**2 / 30, seeds=2)
    size = needed(parts, distance=0.015, tail=0.025)
    assert size is not None
    assert size.words == 1
    rng = np.random.default_rng(3)
    trials = {size.seeds: 0, 3 * size.seeds: 0}
    for seeds in trials:
        for _ in range(60):
            pair = systems(rng, difference=0.015, speakers=30, seeds=seeds, **effects)
            trials[seeds] += wer_difference(*pair, rng=rng, replicates=400).low > 0
    assert 18 <= trials[size.seeds] <= 42
    assert trials[3 * size.seeds] >= 45


@pytest.mark.parametrize(
    ("relation", "left", "verdict", "distance"),
    [
        # Right 0.20 and a margin of 10 %: 0.02.
        ("<", 0.15, "reproduced", 0.05),
        ("<", 0.195, "not reproduced", 0.015),  # 0.005 to a difference, 0.015 to none
        ("<", 0.185, "reproduced", 0.015),
        ("<", 0.23, "not reproduced", 0.03),
        ("<=", 0.19, "reproduced", 0.03),
        ("<=", 0.205, "reproduced", 0.015),
        ("<=", 0.215, "not reproduced", 0.015),
        ("<=", 0.25, "not reproduced", 0.05),
        ("not <", 0.21, "reproduced", 0.03),
        ("not <", 0.195, "reproduced", 0.015),
        ("not <", 0.15, "not reproduced", 0.05),
    ],
)
def test_aim(relation, left: float, verdict: str, distance: float) -> None:
    found = aim(relation, left=left, right=0.2, margin=0.1)
    assert found is not None
    assert (found.verdict, found.distance) == (verdict, pytest.approx(distance))


def test_what_stands_is_not_refuted() -> None:
    found = aim("<=", left=0.215, right=0.2, margin=0.1, stands=True)
    assert found is not None
    assert (found.verdict, found.distance) == ("reproduced", pytest.approx(0.005))


def test_no_data_help_where_nothing_is_recognised() -> None:
    assert aim("<", left=0.95, right=0.97, margin=0.05) is None
    assert aim("<", left=0.95, right=0.5, margin=0.05) is not None
    assert aim("<=", left=0.0, right=0.0, margin=0.05) is None
