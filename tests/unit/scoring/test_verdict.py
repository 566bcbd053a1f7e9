from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from asr_distill.experiment import Scoring
from asr_distill.scoring.ratios import ratio_interval
from asr_distill.scoring.significance import Difference
from asr_distill.scoring.verdict import (
    PValues,
    enough_replicates,
    holm,
    interval_confidence,
    judge,
    judge_claim,
    judge_claims,
    judge_speed,
    p_values,
    rules,
    speed_p_values,
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
    text = " ".join(rules(Scoring(confidence=0.99, margin=0.1), claims=7))
    assert all(number in text for number in ("99 %", "98 %", "10 %", "all 7 claims", "at 1 %"))
    (text,) = speed_rules(Scoring(confidence=0.99))
    assert "99 % t-interval" in text
    assert "fewer than 3 recognisers" in text


def difference(
    resampled: np.ndarray, *, low: float, high: float, left: float = 0.2, right: float = 0.2, confidence: float = 0.95
) -> Difference:
    """Return a comparison of which only replicates, interval and the two rates matter."""
    return Difference(
        left=left,
        right=right,
        difference=left - right,
        low=low,
        high=high,
        relative=0.0,
        relative_low=0.0,
        relative_high=0.0,
        confidence=confidence,
        replicates=len(resampled),
        speakers=10,
        words=1000,
        seeds=1,
        resampled=resampled,
    )


def interval(resampled: np.ndarray, *, confidence: float) -> tuple[float, float]:
    """Return the order statistics that leave (R + 1) tail - 1 replicates beyond them."""
    place = round((1 - confidence) / 2 * (len(resampled) + 1)) - 1
    ordered = np.sort(resampled)
    return ordered[place], ordered[-1 - place]


@pytest.mark.parametrize("relation", ["<", "<=", "not <"])
def test_p_values_and_interval_decide_alike(relation: str) -> None:
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(400):
        # 199 replicates, so that 0.025 and 0.05 are whole numbers of them; the margin is 0.01
        resampled = rng.normal(0.03 * rng.normal(), 0.012 * rng.random(), size=199)
        confidence = interval_confidence(relation, confidence=0.95)
        low, high = interval(resampled, confidence=confidence)
        found = difference(resampled, low=low, high=high, confidence=confidence)
        p = p_values(relation, found, margin=0.05, level=0.05)
        verdict = judge(relation, low=low, high=high, left=0.2, right=0.2, margin=0.05)
        assert (p.reproduced <= 0.05) == (verdict == YES)
        assert (p.refuted <= 0.05) == (verdict == NO)
        verdicts.append(verdict)
    assert min(verdicts.count(verdict) for verdict in (YES, NO, OPEN)) >= 20


def test_p_values_are_counts_of_replicates() -> None:
    resampled = np.array([-0.03] * 10 + [-0.005] * 5 + [0.005] * 3 + [0.02])  # margin 0.01
    found = difference(resampled, low=0, high=0)
    less, at_most, not_less = (p_values(r, found, margin=0.05, level=0.01) for r in ("<", "<=", "not <"))
    assert less.reproduced == pytest.approx(2 * 5 / 20)
    assert less.refuted == pytest.approx(min(1, 2 * min(16, max(11, 2)) / 20))
    assert (at_most.reproduced, at_most.refuted) == (pytest.approx(2 / 20), pytest.approx(16 / 20))
    assert (not_less.reproduced, not_less.refuted) == (pytest.approx(11 / 20), pytest.approx(5 / 20))
    assert p_values("<=", found, margin=0.05, level=0.1).refuted == 1  # reproduced already


def test_nothing_is_told_of_useless_systems_or_one_speaker() -> None:
    nothing = PValues(reproduced=1, refuted=1)
    useless = difference(np.full(999, -0.1), low=-0.1, high=-0.1, left=0.9, right=1.0)
    assert p_values("<", useless, margin=0.05, level=0.05) == nothing
    assert p_values("<", difference(np.array([]), low=math.nan, high=math.nan), margin=0.05, level=0.05) == nothing


@pytest.mark.parametrize(
    "ratios", [(5, 6, 7), (5.9, 6, 6.1), (9, 10, 11), (2, 2.1, 2.2), (6.2, 6.9, 6.4, 7.4), (7, 7, 7)]
)
def test_speed_is_decided_alike_by_p_values_and_interval(ratios: tuple[float, ...]) -> None:
    found = ratio_interval(ratios, runs=3)
    p, verdict = speed_p_values(found, at_least=6), judge_speed(low=found.low, high=found.high, at_least=6)
    assert (p.reproduced <= 0.05, p.refuted <= 0.05) == (verdict == YES, verdict == NO)


def test_speed_of_too_few_recognisers() -> None:
    assert speed_p_values(ratio_interval([9, 9], runs=2), at_least=6) == PValues(reproduced=1, refuted=1)


def test_holm() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.04, 0.03, 0.005], among=6) == pytest.approx([0.05, 0.12, 0.12, 0.03])
    assert holm([0.5, 0.6]) == [1, 1]
    with_nan = holm([0.01, math.nan])
    assert with_nan[0] == pytest.approx(0.02)
    assert math.isnan(with_nan[1])
    assert holm([]) == []


def yes(p: float) -> PValues:
    return PValues(reproduced=p, refuted=1.0)


def no(p: float) -> PValues:
    return PValues(reproduced=1.0, refuted=p)


def test_a_claim_has_the_largest_p_to_pass_and_the_smallest_times_their_number_to_fail() -> None:
    claims = {"all": [yes(0.001), yes(0.01)], "one fails": [yes(0.001), no(0.004)], "open": [yes(0.001), yes(0.2)]}
    judged = judge_claims(claims, among=3, level=0.05)
    assert {name: one.verdict for name, one in judged.items()} == {"all": YES, "one fails": NO, "open": OPEN}
    assert judged["all"].adjusted.reproduced == pytest.approx(3 * 0.01)
    assert judged["one fails"].adjusted.refuted == pytest.approx(3 * 2 * 0.004)


def test_the_correction_can_make_a_claim_inconclusive() -> None:
    claims = {"A": [yes(0.02)], "B": [no(0.03), yes(0.001)], "C": [yes(0.001)]}
    judged = judge_claims(claims, among=3, level=0.05)
    assert {name: one.uncorrected for name, one in judged.items()} == {"A": YES, "B": NO, "C": YES}
    assert {name: one.verdict for name, one in judged.items()} == {"A": YES, "B": OPEN, "C": YES}
    assert judge_claims(claims, among=5, level=0.05)["A"].verdict == OPEN


def test_a_part_of_the_study_never_says_more_than_the_whole() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = rng.random((6, 2)) ** 4
        claims = {str(n): [PValues(reproduced=a, refuted=1.0 if a <= 0.05 else b)] for n, (a, b) in enumerate(p)}
        whole = judge_claims(claims, among=6, level=0.05)
        part = judge_claims({name: claims[name] for name in ("0", "3", "4")}, among=6, level=0.05)
        for name, one in part.items():
            assert one.verdict in (whole[name].verdict, OPEN)
            assert whole[name].verdict in (whole[name].uncorrected, OPEN)
            assert one.adjusted.reproduced >= whole[name].adjusted.reproduced


def test_few_studies_hold_any_wrong_verdict() -> None:
    """Ten false claims of two comparisons, one of them false, and ten true ones: 5 % of the studies may be wrong."""
    rng = np.random.default_rng(0)
    wrong = {YES: 0, NO: 0}
    trials = 400
    for _ in range(trials):
        null = rng.random(10)  # p-values of the false comparisons; those of the true ones are tiny
        false = {f"false {n}": [yes(p), yes(1e-4)] for n, p in enumerate(null)}
        true = {f"true {n}": [PValues(reproduced=1.0, refuted=p) for p in rng.random(2)] for n in range(10)}
        judged = judge_claims(false | true, among=20, level=0.05)
        wrong[YES] += any(one.verdict == YES for name, one in judged.items() if name.startswith("false"))
        wrong[NO] += any(one.verdict == NO for name, one in judged.items() if name.startswith("true"))
    assert max(wrong.values()) / trials <= 0.08


@pytest.mark.parametrize(("comparisons", "claims"), [(1, 16), (16, 16), (2, 50)])
def test_replicates_are_enough_for_the_smallest_level(comparisons: int, claims: int) -> None:
    replicates = enough_replicates(Scoring(), comparisons=comparisons, claims=claims)
    assert replicates >= 2000
    smallest = 2 / (replicates + 1)
    others = {str(n): [yes(1.0)] for n in range(claims - 1)}
    refuted = {"A": [no(smallest), *[yes(1e-4)] * (comparisons - 1)]}
    assert judge_claims(refuted | others, among=claims, level=0.05)["A"].verdict == NO
    reproduced = {"A": [yes(2 / 2001)] * comparisons}
    assert judge_claims(reproduced | others, among=claims, level=0.05)["A"].verdict == YES
