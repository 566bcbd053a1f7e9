from __future__ import annotations

import math

import pytest

from asr_distill.scoring.ratios import ratio_interval, t_quantile, t_tail

# Student's t, two-sided, from printed tables (for example Abramowitz & Stegun 1964, table 26.10)
TABLE = [
    (0.95, 1, 12.7062),
    (0.95, 2, 4.3027),
    (0.95, 5, 2.5706),
    (0.95, 18, 2.1009),
    (0.95, 120, 1.9799),
    (0.9, 2, 2.9200),
    (0.99, 10, 3.1693),
]


@pytest.mark.parametrize(("confidence", "degrees", "expected"), TABLE)
def test_t_quantile(confidence: float, degrees: int, expected: float) -> None:
    assert t_quantile(confidence, degrees=degrees) == pytest.approx(expected, abs=6e-5)


def test_ratios_are_averaged_as_logarithms() -> None:
    found = ratio_interval([2, 4, 8], runs=3)
    # logarithms to base 2 are 1, 2, 3: mean 2, deviation 1, standard error 1 / sqrt(3)
    width = 4.3027 / math.sqrt(3)
    assert found.ratio == pytest.approx(4)
    assert found.low == pytest.approx(2 ** (2 - width), rel=1e-4)
    assert found.high == pytest.approx(2 ** (2 + width), rel=1e-4)
    assert (found.runs, found.reason) == (3, "")


def test_turning_a_ratio_round_turns_its_interval_round() -> None:
    there, back = ratio_interval([5, 7, 6, 11], runs=4), ratio_interval([1 / 5, 1 / 7, 1 / 6, 1 / 11], runs=4)
    assert (back.ratio, back.low, back.high) == pytest.approx((1 / there.ratio, 1 / there.high, 1 / there.low))


def test_two_runs_give_no_interval_however_many_seeds() -> None:
    found = ratio_interval([6.0, 6.5, 7.0, 6.2], runs=2)
    assert found.ratio == pytest.approx((6.0 * 6.5 * 7.0 * 6.2) ** 0.25)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.reason == "2 runs measured, and an interval needs 3"
    assert math.isnan(ratio_interval([], runs=0).ratio)
    assert ratio_interval([3.0], runs=1).reason == "1 run measured, and an interval needs 3"


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.inf, math.nan])
def test_a_ratio_that_is_none(wrong: float) -> None:
    with pytest.raises(ValueError, match="not all are positive and finite; measure again"):
        ratio_interval([2.0, wrong, 3.0], runs=3)


def test_tail_of_student_t() -> None:
    # 2.3646 leaves 2.5 % beyond it with 7 degrees, 12.7062 with 1 (printed tables)
    assert t_tail(2.3646, degrees=7) == pytest.approx(0.025, abs=1e-5)
    assert t_tail(-12.7062, degrees=1) == pytest.approx(0.975, abs=1e-5)
    assert (t_tail(0.0, degrees=4), t_tail(math.inf, degrees=4), t_tail(-math.inf, degrees=4)) == (0.5, 0.0, 1.0)
