"""The training seeds, and the multiple of the test words, that would decide a comparison.

The variance of WER(left) - WER(right) has two parts. Take the linearised difference x of seed k and speaker s, whose
mean over both is the difference, as a sum of independent effects of speaker, seed and both together, with variances a,
b and e (two-way analysis of variance without replication). With S speakers and K seeds the bootstrap's variance is

    a / S  +  (b + 3 e / S) / K

(Owen 2007, theorem 1; the plain mean has e in place of 3 e: crossed resampling errs on the wide side). The first part,
of the *speakers*, does not fall with more seeds; the second, of the *seeds*, does. With one seed the two cannot be told
apart. An interval of half-width z times the root of this variance (normal approximation) around the difference as
observed excludes a bound at distance d where the variance is at most (d / z) ** 2.

What comes out is a rough guide: the observed difference is itself uncertain, and if it is the true one, a repetition at
that size decides the comparison about every second time.
"""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import pandas as pd

from asr_distill.experiment import Relation
from asr_distill.scoring.significance import sum_by_speaker
from asr_distill.scoring.verdict import USELESS, Verdict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """Variance of a difference of two word error rates (fractions), by where it comes from."""

    speakers: float
    """Of the test speakers; NaN with one speaker."""
    seed: float
    """Of one training seed: divided by their number; NaN with one seed or one speaker."""
    seeds: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aim:
    """The verdict that a difference would lead to if it stayed as observed and its interval shrank."""

    verdict: Verdict
    distance: float
    """From the difference to the nearest bound that its interval must exclude (a fraction, like the difference)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """Seeds and test words that suffice together."""

    seeds: int
    words: float
    """As a multiple of the words there are."""


def spread(left: pd.DataFrame, right: pd.DataFrame) -> Spread:
    """Return the parts of the variance of WER(left) - WER(right).

    Args:
        left: one row per seed and utterance; columns seed (optional), speaker, words, errors.
        right: the same speakers, words and seeds as left.
    """
    ours, theirs = sum_by_speaker(left), sum_by_speaker(right)
    seeds, speakers = len(ours.seeds), len(ours.speakers)
    if speakers < 2:
        return Spread(speakers=math.nan, seed=math.nan, seeds=seeds)
    share = ours.words / ours.words.sum()
    effects = speakers * ((ours.errors - theirs.errors) / ours.words.sum() - (ours.wer - theirs.wer) * share)  # (K, S)
    by_speaker, by_seed = effects.mean(axis=0), effects.mean(axis=1)
    between_speakers = float((by_speaker**2).sum() / (speakers - 1))
    if seeds < 2:
        return Spread(speakers=between_speakers / speakers, seed=math.nan, seeds=seeds)
    rest = float(((effects - by_speaker - by_seed[:, None]) ** 2).sum() / ((speakers - 1) * (seeds - 1)))
    between_seeds = float((by_seed**2).sum() / (seeds - 1))  # estimates b + e / S
    return Spread(
        speakers=max(0.0, between_speakers - rest / seeds) / speakers,
        seed=between_seeds + 2 * rest / speakers,
        seeds=seeds,
    )


def aim(relation: Relation, *, left: float, right: float, margin: float, stands: bool = False) -> Aim | None:
    """Return where a comparison is heading; None where no data would help.

    Of two verdicts that the difference could lead to, the one whose bound is farther away comes first, but nothing
    refutes a comparison that stands.

    Args:
        relation: what is claimed.
        left: WER(left), a fraction.
        right: WER(right).
        margin: share of WER(right) that counts as no difference.
        stands: whether it is reproduced already, without correction.
    """
    difference, width = left - right, margin * right
    if relation == "<":
        reproduced, refuted = -difference, max(difference, width - abs(difference))
    elif relation == "<=":
        reproduced, refuted = width - difference, difference
    else:
        reproduced, refuted = width + difference, -difference
    distance = reproduced if stands else max(reproduced, refuted)
    if min(left, right) >= USELESS or distance <= 0:
        return None
    return Aim(verdict="reproduced" if stands or reproduced >= refuted else "not reproduced", distance=distance)


def needed(parts: Spread, *, distance: float, tail: float) -> Size | None:
    """Return the size at which the interval of the observed difference excludes a bound; None if it cannot be told.

    More seeds alone where that suffices; where the speakers' part alone is too wide, more words with the seeds there
    are; and where these do not suffice either, half of the variance allowed is given to each. That more words also
    lessen the seeds' part a little is left out.

    Args:
        parts: variance of the difference.
        distance: from the difference to the bound, a fraction.
        tail: probability beyond the bound: 0.025 for a two-sided interval of 95 %.
    """
    if math.isnan(parts.seed):
        return None
    allowed = (distance / NormalDist().inv_cdf(1 - tail)) ** 2
    if parts.speakers < allowed:
        seeds = math.ceil(parts.seed / (allowed - parts.speakers))
        return Size(seeds=max(seeds, parts.seeds + 1), words=1.0)
    of_seeds = parts.seed / parts.seeds
    if of_seeds <= allowed / 2:
        return Size(seeds=parts.seeds, words=parts.speakers / (allowed - of_seeds))
    return Size(seeds=max(math.ceil(2 * parts.seed / allowed), parts.seeds), words=2 * parts.speakers / allowed)
