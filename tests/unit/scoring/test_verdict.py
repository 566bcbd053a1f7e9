from __future__ import annotations

import itertools
import math

import pytest

from asr_distill.experiment import Scoring
from asr_distill.scoring.verdict import (
    interval_confidence,
    judge,
    judge_claim,
    judge_speed,
    rules,
    speed_rules,
)

YES, NO, OPEN = "reproduced", "not reproduced", "inconclusive"

# Right WER 20, margin 5 %: m = 1. Every order of low and high among -m, 0 and m, bounds on the edges included.
TABLE = [
    # low, high, "<", "<=", "not <"
    (-3.0, -2.0, YES, YES, NO),
    (-3.0, -1.0, YES, YES, NO),
    (-3.0, -0.5, YES, YES, NO),
    (-3.0, 0.0, OPEN, YES, OPEN),
    (-3.0, 0.5, OPEN, YES, OPEN),
    (-3.0, 1.0, OPEN, OPEN, OPEN),
    (-3.0, 3.0, OPEN, OPEN, OPEN),
    (-1.0, -0.5, YES, YES, NO),
    (-1.0, 0.0, OPEN, YES, OPEN),
    (-1.0, 1.0, OPEN, OPEN, OPEN),
    (-0.8, -0.5, YES, YES, YES),
    (-0.5, 0.0, NO, YES, YES),
    (-0.5, 0.5, NO, YES, YES),
    (-0.5, 1.0, OPEN, OPEN, YES),
    (-0.5, 3.0, OPEN, OPEN, YES),
    (0.0, 0.0, NO, YES, YES),
    (0.0, 0.5, NO, YES, YES),
    (0.0, 1.0, OPEN, OPEN, YES),
    (0.0, 3.0, OPEN, OPEN, YES),
    (0.5, 0.8, NO, YES, YES),
    (0.5, 1.0, NO, NO, YES),
    (0.5, 3.0, NO, NO, YES),
    (1.0, 3.0, NO, NO, YES),
    (2.0, 3.0, NO, NO, YES),
    (math.nan, math.nan, OPEN, OPEN, OPEN),
]


@pytest.mark.parametrize(("low", "high", "less", "at_most", "not_less"), TABLE)
def test_table_of_rules(low: float, high: float, less: str, at_most: str, not_less: str) -> None:
    for relation, verdict in (("<", less), ("<=", at_most), ("not <", not_less)):
        bounds = {"low": low / 128, "high": high / 128}  # in 128ths, because those are exact: the margin is one of them
        assert judge(relation, **bounds, left=0.2, right=1 / 8, margin=1 / 16) == verdict, relation
        assert judge(relation, **bounds, left=1.0, right=1 / 8, margin=1 / 16) == verdict, relation
        assert judge(relation, **bounds, left=0.9, right=1.0, margin=1 / 128) == OPEN, relation


@pytest.mark.parametrize(
    ("low", "high"), list(itertools.combinations_with_replacement([-2, -1, -0.5, 0, 0.5, 1, 2], 2))
)
def test_rules_as_they_are_worded(low: float, high: float) -> None:
    def verdict(yes: bool, no: bool) -> str:
        return YES if yes else NO if no else OPEN

    expected = {
        "<": verdict(high < 0, low > 0 or (low > -1 and high < 1)),
        "<=": verdict(high < 1, low > 0),
        "not <": verdict(low > -1, high < 0),
    }
    bounds = {"low": low / 128, "high": high / 128, "left": 1 / 8, "right": 1 / 8}
    assert {r: judge(r, **bounds, margin=1 / 16) for r in expected} == expected


def test_without_errors_nothing_can_be_equivalent() -> None:
    assert judge("<=", low=0.0, high=0.0, left=0.0, right=0.0, margin=0.05) == OPEN


def test_claim_needs_all() -> None:
    for verdicts in itertools.product((YES, NO, OPEN), repeat=3):
        expected = YES if set(verdicts) == {YES} else NO if NO in verdicts else OPEN
        assert judge_claim(verdicts) == expected
    assert judge_claim([]) == OPEN


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (6.5, 8.0, YES),
        (6.0, 8.0, YES),
        (5.9, 8.0, OPEN),
        (5.0, 6.0, OPEN),
        (5.0, 5.9, NO),
        (1.0, 1.1, NO),
        (math.nan, math.nan, OPEN),
    ],
)
def test_at_least_six_times_as_long(low: float, high: float, verdict: str) -> None:
    assert judge_speed(low=low, high=high, at_least=6) == verdict


def test_levels() -> None:
    assert interval_confidence("<", confidence=0.95) == 0.95
    assert interval_confidence("<=", confidence=0.95) == 0.9
    assert interval_confidence("not <", confidence=0.99) == 0.98


def test_rules_name_the_numbers_of_the_scale() -> None:
    text = " ".join(rules(Scoring(confidence=0.99, margin=0.1)))
    assert all(number in text for number in ("99 %", "98 %", "10 %"))
    (text,) = speed_rules(Scoring(confidence=0.99))
    assert "99 % t-interval" in text
    assert "fewer than 3 recognisers" in text
