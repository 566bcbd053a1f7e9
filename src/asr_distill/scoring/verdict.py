"""When is a claim reproduced? The rules, fixed before any run.

A comparison is decided by the interval [low, high] of WER(left) - WER(right) and the margin m, a share of WER(right):

=======  ========  =============================  ==========================================================
relation interval  reproduced                     not reproduced (where not reproduced already)
=======  ========  =============================  ==========================================================
`<`      95 %      high < 0: left is better       low > 0: left is worse; or -m < low and high < m: no difference
`<=`     90 %      high < m: not worse by m       low > 0: left is worse
`not <`  90 %      low > -m: not better by m      high < 0: left is better
=======  ========  =============================  ==========================================================

Anything else, an undefined interval included, is inconclusive: the test set is too small to tell. So is a comparison of
two systems that recognise next to nothing, whose word error rates are equal for want of words. "At least as good"
and "does not beat" are each one of Schuirmann's two one-sided tests at 5 %, which is the 90 % interval; in general
1 - 2 (1 - confidence).

A comparison of speed, "this search takes at least f times as long as that one", is decided by the ratio of their
real-time factors from stored features to text: reading, encoder and search. Each CTC recogniser and training seed gives
one ratio, and both searches ran in one process on the same utterances. With the 95 % t-interval [low, high] of the
geometric mean of these ratios (ratios.py) it is

* reproduced if low >= f,
* not reproduced if high < f,
* inconclusive otherwise, and with fewer than three recognisers.

"About 4 times" is judged as at least 4: a factor that is larger still speaks for what is claimed. This rule is younger
than the others: trial runs had been timed, the runs that it judges had not.

A claim over several comparisons and conditions is reproduced if all are, not reproduced if any is not, and else
inconclusive: that is its verdict *without correction*. Its verdict proper accounts for the number of claims:

1. *Comparisons.* Each has two p-values, from the replicates of its interval: `reproduced`, of the hypothesis that what
   is claimed is false, and `refuted`, of the hypothesis that it is true. Each is the p-value of the test that the table
   above states as an interval, doubled where the interval is two-sided, so that it is at most 1 - confidence exactly
   where the interval gives that verdict. Null hypotheses, with d the difference:

   =======  =================  ===========================================================================
   relation reproduced         refuted (1 where reproduced already)
   =======  =================  ===========================================================================
   `<`      d >= 0, doubled    the smaller of d <= 0 and (the larger of d >= m and d <= -m), each doubled
   `<=`     d >= m             d <= 0
   `not <`  d <= -m            d >= 0
   =======  =================  ===========================================================================

   "Refuted" takes the smaller of two for `<` without a penalty: both tests need d > -m to be shown, so where left is
   better by m or more, either passes with at most the chance of that one test (a left side that is better by less than
   m counts as no different). The larger of two is Schuirmann's (1987) test of equivalence.
2. *Claims.* A claim passes if all its comparisons do, so its `reproduced` is the largest of theirs: a false claim has
   at least one false comparison, and that one must pass (intersection-union test, Berger 1982), with no correction
   within the claim. It fails if any comparison fails, so its `refuted` is k times the smallest of k (Bonferroni).
3. *Study.* Holm's (1979) step-down procedure, once over the `reproduced` and once over the `refuted` of all claims, at
   1 - confidence each: the chance that any false claim of the study is called reproduced stays below 5 %, and so does
   the chance that any true one is called not reproduced, however the claims depend on each other. Tests of the same
   runs do.

This correction is younger than the rules for comparisons: first runs of the core of one study had been seen. It can
only make a verdict inconclusive, never turn it round.

The number of claims corrected for is that of the whole study at its scale, whichever part of it is built, and a claim
that the part cannot decide counts with p = 1. More of the study can then only lower the adjusted p-values: a verdict
reached on the core is never withdrawn by the complete study, though one that was inconclusive may be reached.

A bootstrap p-value of R replicates is 1 / (R + 1) at least, doubled for `<`. With 2,000 replicates and 16 claims the
smallest adjusted `reproduced` is 0.016; `refuted` of a claim of k comparisons needs k times as many, so
`enough_replicates` says how many a claim is given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from asr_distill.experiment import Relation, Scoring
from asr_distill.scoring.ratios import FEWEST_RUNS, RatioInterval, t_tail
from asr_distill.scoring.significance import Difference

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]

USELESS = 0.9
"""Word error rate from which on a system recognises next to nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PValues:
    """Of a comparison or a claim; 1 where nothing can be told."""

    reproduced: float
    """Of its being false: small where it is reproduced."""
    refuted: float
    """Of its being true: small where it is not reproduced."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClaimVerdict:
    """What is made of one claim among all of its study."""

    verdict: Verdict
    uncorrected: Verdict
    """Were it the only claim, and its comparisons the only ones."""
    adjusted: PValues
    """Of the claim, corrected for the number of claims."""


def interval_confidence(relation: Relation, *, confidence: float) -> float:
    """Return the coverage of the interval that decides a relation: 0.95, or 0.90 for one-sided tests at 5 %."""
    return confidence if relation == "<" else round(1 - 2 * (1 - confidence), 10)


def judge(relation: Relation, *, low: float, high: float, left: float, right: float, margin: float) -> Verdict:
    """Decide one comparison by the interval of WER(left) - WER(right).

    Args:
        relation: what is claimed.
        low: lower bound, at the relation's `interval_confidence`; may be NaN.
        high: upper bound.
        left: WER(left), a fraction like the bounds.
        right: WER(right).
        margin: share of WER(right) that counts as no difference.
    """
    if min(left, right) >= USELESS:
        return "inconclusive"
    width = margin * right
    if relation == "<":
        reproduced, refuted = high < 0, low > 0 or (-width < low and high < width)
    elif relation == "<=":
        reproduced, refuted = high < width, low > 0
    else:
        reproduced, refuted = low > -width, high < 0
    if reproduced:
        return "reproduced"
    return "not reproduced" if refuted else "inconclusive"


def judge_speed(*, low: float, high: float, at_least: float) -> Verdict:
    """Decide whether something takes at least so many times as long, by the interval of the ratio (may be NaN)."""
    if low >= at_least:
        return "reproduced"
    return "not reproduced" if high < at_least else "inconclusive"


def p_values(relation: Relation, found: Difference, *, margin: float, level: float) -> PValues:
    """Return the p-values of one comparison.

    Args:
        relation: what is claimed.
        found: the comparison.
        margin: share of WER(right) that counts as no difference.
        level: 1 - confidence, at or below which a p-value decides.
    """
    if min(found.left, found.right) >= USELESS:
        return PValues(reproduced=1.0, refuted=1.0)
    width = margin * found.right
    if relation == "<":
        equivalent = max(found.p_above(-width), found.p_below(width))
        reproduced, refuted = 2 * found.p_below(0.0), 2 * min(found.p_above(0.0), equivalent)
    elif relation == "<=":
        reproduced, refuted = found.p_below(width), found.p_above(0.0)
    else:
        reproduced, refuted = found.p_above(-width), found.p_below(0.0)
    return PValues(reproduced=min(1.0, reproduced), refuted=1.0 if reproduced <= level else min(1.0, refuted))


def speed_p_values(found: RatioInterval, *, at_least: float) -> PValues:
    """Return the p-values of "at least so many times as long", from the t-distribution of the ratio's logarithm."""
    if not found.degrees:
        return PValues(reproduced=1.0, refuted=1.0)
    above = math.log(found.ratio / at_least)
    t = above / found.error if found.error else math.copysign(math.inf, above)
    larger, smaller = (min(1.0, 2 * t_tail(value, degrees=found.degrees)) for value in (t, -t))
    return PValues(reproduced=larger, refuted=smaller)


def judge_claim(verdicts: Iterable[Verdict]) -> Verdict:
    """Decide a claim by the verdicts of all its comparisons under all its conditions, without correction."""
    verdicts = set(verdicts)
    if verdicts == {"reproduced"}:
        return "reproduced"
    return "not reproduced" if "not reproduced" in verdicts else "inconclusive"


def judge_claims(claims: Mapping[str, Sequence[PValues]], *, among: int, level: float) -> dict[str, ClaimVerdict]:
    """Decide the claims of a study by the p-values of their comparisons, corrected for the number of claims.

    Args:
        claims: the comparisons of each claim that can be decided.
        among: number of claims in the whole study.
        level: 1 - confidence.
    """
    raw = {
        name: PValues(
            reproduced=max(p.reproduced for p in comparisons),
            refuted=min(1.0, len(comparisons) * min(p.refuted for p in comparisons)),
        )
        for name, comparisons in claims.items()
    }
    reproduced, refuted = (
        holm([getattr(p, kind) for p in raw.values()], among=among) for kind in ("reproduced", "refuted")
    )
    adjusted = {
        name: PValues(reproduced=yes, refuted=no) for name, yes, no in zip(raw, reproduced, refuted, strict=True)
    }
    return {
        name: ClaimVerdict(
            verdict=_decide(adjusted[name], level=level),
            uncorrected=judge_claim(_decide(p, level=level) for p in comparisons),
            adjusted=adjusted[name],
        )
        for name, comparisons in claims.items()
    }


def _decide(p: PValues, *, level: float) -> Verdict:
    if p.reproduced <= level:
        return "reproduced"
    return "not reproduced" if p.refuted <= level else "inconclusive"


def holm(p_values: Sequence[float], *, among: int | None = None) -> list[float]:
    """Return p-values adjusted for having looked at all of them (Holm 1979).

    Args:
        p_values: of the tests; NaN stays, and counts as one of them.
        among: number of tests, where there are more than these; the p-values of the others count as 1.
    """
    tests = len(p_values) if among is None else among
    assert len(p_values) <= tests, f"{len(p_values)} tests among {tests}"
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")  # NaN comes last
    factors = tests - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * values[order]))
    return adjusted.tolist()


def enough_replicates(scoring: Scoring, *, comparisons: int, claims: int) -> int:
    """Return how many replicates a claim of so many comparisons needs, among so many claims of a study.

    So many that the smallest p-value possible, of `<`, is at most 0.4 times the smallest level that any comparison can
    have to pass; never fewer than the scale asks for.
    """
    return max(scoring.replicates, math.ceil(5 * comparisons * claims / level(scoring)))


def level(scoring: Scoring) -> float:
    """Return the level of all tests, 0.05 at a confidence of 95 %."""
    return round(1 - scoring.confidence, 10)


def rules(scoring: Scoring, *, claims: int) -> tuple[str, ...]:
    """Return the rules in words, with a scale's own numbers, for printing under a table of claims."""
    margin = f"{100 * scoring.margin:g} %"
    wide, narrow = (
        f"{100 * interval_confidence(relation, confidence=scoring.confidence):g} %" for relation in ("<", "<=")
    )
    return (
        f"“left < right” is reproduced if the {wide} interval of the difference left − right lies below zero; not "
        f"reproduced if it lies above zero, or wholly within ± {margin} of the right WER (no difference).",
        f"“left ≤ right” (at least as good) is reproduced if the {narrow} interval ends below + {margin} of the "
        "right WER; not reproduced if, failing that, it lies above zero.",
        f"“left not < right” (does not beat) is reproduced if the {narrow} interval begins above − {margin} of the "
        "right WER; not reproduced if, failing that, it lies below zero.",
        f"Otherwise a comparison is inconclusive, and so is one of two systems with error rates of {100 * USELESS:g} % "
        "or more, which recognise next to nothing. A claim is reproduced if all its comparisons are, not reproduced if "
        "any is not, else inconclusive. These rules were fixed before any run.",
        "p: of the test behind the interval, from the same bootstrap replicates; small where the comparison is "
        "reproduced, or not reproduced.",
        f"The verdict on a claim accounts for all {claims} claims of the study, whichever part of it is built: Holm's "
        "correction of the largest p-value of its comparisons (reproduced), or of the smallest times their number (not "
        f"reproduced), at {100 * level(scoring):g} %. It was added after the first runs, and can only make a verdict "
        "inconclusive.",
    )


def speed_rules(scoring: Scoring) -> tuple[str, ...]:
    """Return the rule for speed in words, with a scale's own numbers."""
    return (
        f"“at least f times as long” is reproduced if the {100 * scoring.confidence:g} % t-interval of the mean ratio "
        "(geometric, over CTC recognisers and training seeds) begins at f or above; not reproduced if it ends below f; "
        f"else, and with fewer than {FEWEST_RUNS} recognisers, inconclusive. The ratio is that of real-time factors "
        "from stored features to text, encoder included. “About f times” is judged as at least f. This rule was fixed "
        "before the runs that it judges.",
    )
