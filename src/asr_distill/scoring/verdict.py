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
inconclusive. Demanding all of them needs no correction for multiple tests: a false claim has at least one false
comparison, and for the claim to pass that one must pass, which happens with at most the error rate of a single test
(intersection-union test, Berger 1982). "Not reproduced" has no such guard: with k comparisons a true claim is refused
with a chance of up to k times that of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from asr_distill.experiment import Relation, Scoring
from asr_distill.scoring.ratios import FEWEST_RUNS

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]


USELESS = 0.9
"""Word error rate from which on a system recognises next to nothing."""


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


def judge_claim(verdicts: Iterable[Verdict]) -> Verdict:
    """Decide a claim by the verdicts of all its comparisons under all its conditions."""
    verdicts = set(verdicts)
    if verdicts == {"reproduced"}:
        return "reproduced"
    return "not reproduced" if "not reproduced" in verdicts else "inconclusive"


def rules(scoring: Scoring) -> tuple[str, ...]:
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
