"""Bootstrap intervals and tests for word error rates, blocked by speaker and by training seed.

What is resampled, and why:

* *Speakers*, whole and with replacement: utterances of one speaker fail together, so resampling utterances would
  promise too narrow an interval (Bisani & Ney 2004 resample utterances or speakers; Liu et al. 2020 block by speaker).
* *Seeds*, where there are several, crossed with the speakers (Owen 2007's "pigeonhole" bootstrap, which errs on the
  wide side). With one seed the interval speaks of the test speakers alone, not of another training run.
* *Pairs*: a comparison uses the same resampled speakers and the same resampled seeds on both sides. Seed k of a student
  was trained from seed k of its teacher, so two students of seed k share a teacher, and a student shares it with the
  teacher itself: resampling the sides independently would count that shared luck as if it could differ. Where two runs
  share nothing but the number of the seed, pairing is still right, as an arbitrary pairing of independent samples is.
* *n - 1 of n* speakers, and n - 1 of n seeds, are drawn: drawing n would give a variance too small by (n - 1) / n,
  which matters with three seeds or ten speakers (Rao & Wu 1988).

Percentile intervals: they follow the skew of a ratio such as WER and need no variance estimate within a replicate. BCa
would estimate its acceleration from the same handful of speakers. With fewer than about ten speakers they are still
somewhat too short. The bounds are order statistics, the (R + 1) tail-th of R replicates from either end, and the
p-value of "the difference is b or more" is (1 + replicates at b or above) / (R + 1) (Davison & Hinkley 1997, secs. 4.4
and 5.3): it is at most the tail exactly where the bound excludes b, so that the two cannot contradict each other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ONE_SPEAKER = "one speaker only: how the word error rate varies between speakers cannot be estimated"
SHARED_SPEAKERS = "parts share speakers: how their mean varies between speakers is not estimated"
FEW_SPEAKERS = 10
"""With fewer, percentile intervals are noticeably too short."""


Draws = tuple[NDArray[np.int64], NDArray[np.int64]]
"""How often each seed (R, K) and each speaker (R, S) is drawn in each replicate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WerInterval:
    """A word error rate (a fraction) and its interval; NaN bounds come with a reason."""

    wer: float
    low: float
    high: float
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
    """Left against right on the same utterances: rates and their difference are fractions, not percent."""

    left: float
    right: float
    difference: float
    """left - right."""
    low: float
    high: float
    relative: float
    """(left - right) / right."""
    relative_low: float
    relative_high: float
    confidence: float
    """Coverage of both intervals."""
    replicates: int
    speakers: int
    words: int
    seeds: int
    resampled: NDArray[np.float64] = dataclasses.field(repr=False, compare=False)
    """(R,): the difference in each resampled test set; none where the interval is NaN."""
    reason: str = ""
    """Why the interval is NaN."""

    def p_below(self, bound: float) -> float:
        """Return the one-sided p-value of a difference of `bound` or more: small where it lies below."""
        return (int((self.resampled >= bound).sum()) + 1) / (len(self.resampled) + 1)

    def p_above(self, bound: float) -> float:
        """Return the one-sided p-value of a difference of `bound` or less: small where it lies above."""
        return (int((self.resampled <= bound).sum()) + 1) / (len(self.resampled) + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakerErrors:
    """Word errors of one system on one part, summed by speaker."""

    seeds: tuple[int, ...]
    speakers: tuple[str, ...]
    words: NDArray[np.int64]
    """(S,): reference words by speaker."""
    errors: NDArray[np.int64]
    """(K, S): word errors by seed and speaker."""

    @property
    def wer(self) -> float:
        """Mean over the seeds of the corpus-level word error rate."""
        return float(self.errors.sum() / (len(self.seeds) * self.words.sum()))


def wer_interval(
    utterances: pd.DataFrame, *, rng: np.random.Generator, replicates: int = 2000, confidence: float = 0.95
) -> WerInterval:
    """Return the word error rate of one system on one part, averaged over its seeds, with its interval.

    Args:
        utterances: one row per seed and utterance; columns seed (optional), speaker, words, errors.
        rng: source of the resampling.
        replicates: number of resampled test sets.
        confidence: coverage of the interval.

    Raises:
        ValueError: when there are no reference words, or seeds were scored on different utterances.
    """
    system = sum_by_speaker(utterances)
    if len(system.speakers) < 2:
        return WerInterval(wer=system.wer, low=math.nan, high=math.nan, reason=ONE_SPEAKER)
    draws = _draw(system, rng=rng, replicates=replicates)
    low, high = _percentiles(_resampled_wer(system, draws=draws), confidence=confidence)
    return WerInterval(wer=system.wer, low=low, high=high)


def mean_wer_interval(
    parts: Sequence[pd.DataFrame], *, rng: np.random.Generator, replicates: int = 2000, confidence: float = 0.95
) -> WerInterval:
    """Return the mean over parts of the word error rates of one system, with its interval.

    Speakers are drawn in each part by themselves, because no speaker is in two; seeds once for all parts, because the
    same training runs were scored on each.

    Args:
        parts: utterances of each part, as for `wer_interval`, of the same seeds.
        rng: source of the resampling.
        replicates: number of resampled test sets.
        confidence: coverage of the interval.

    Raises:
        ValueError: when a part has no reference words, or the parts were scored with different seeds.
    """
    systems = [sum_by_speaker(part) for part in parts]
    if len({system.seeds for system in systems}) > 1:
        raise ValueError("a mean over parts needs the same seeds on all of them; decode every seed on the same parts")
    wer = float(np.mean([system.wer for system in systems]))
    speakers = [speaker for system in systems for speaker in system.speakers]
    reason = ONE_SPEAKER if min(len(system.speakers) for system in systems) < 2 else ""
    if len(set(speakers)) < len(speakers):
        reason = SHARED_SPEAKERS
    if reason:
        return WerInterval(wer=wer, low=math.nan, high=math.nan, reason=reason)
    seeds = _multiplicities(len(systems[0].seeds), rng, replicates)
    drawn = [(system, _multiplicities(len(system.speakers), rng, replicates)) for system in systems]
    means = np.mean([_resampled_wer(system, draws=(seeds, speakers)) for system, speakers in drawn], axis=0)
    low, high = _percentiles(means, confidence=confidence)
    return WerInterval(wer=wer, low=low, high=high)


def wer_difference(
    left: pd.DataFrame,
    right: pd.DataFrame,
    *,
    rng: np.random.Generator,
    replicates: int = 2000,
    confidence: float = 0.95,
) -> Difference:
    """Compare two systems on one part: WER(left) - WER(right), paired by speaker and seed.

    Args:
        left: as for `wer_interval`.
        right: the same speakers, words and seeds as left.
        rng: source of the resampling.
        replicates: number of resampled test sets.
        confidence: coverage of the interval.

    Raises:
        ValueError: when there are no reference words, or the two sides were scored on different utterances or seeds.
    """
    ours, theirs = sum_by_speaker(left), sum_by_speaker(right)
    _check_pair(ours, theirs)
    draws = _draw(ours, rng=rng, replicates=replicates)
    rates, base = (_resampled_wer(system, draws=draws) for system in (ours, theirs))
    ratios = np.divide(rates, base, out=np.full(len(base), np.nan), where=base > 0)
    alone = len(ours.speakers) == 1
    undefined = (math.nan, math.nan)
    low, high = undefined if alone else _percentiles(rates - base, confidence=confidence)
    relative_low, relative_high = undefined if alone else _percentiles(ratios - 1, confidence=confidence)
    return Difference(
        left=ours.wer,
        right=theirs.wer,
        difference=ours.wer - theirs.wer,
        low=low,
        high=high,
        relative=(ours.wer - theirs.wer) / theirs.wer if theirs.wer else math.nan,
        relative_low=relative_low,
        relative_high=relative_high,
        confidence=confidence,
        replicates=replicates,
        speakers=len(ours.speakers),
        words=int(ours.words.sum()),
        seeds=len(ours.seeds),
        resampled=(rates - base)[np.isfinite(rates) & (not alone)],
        reason=ONE_SPEAKER if alone else "",
    )


def sum_by_speaker(utterances: pd.DataFrame) -> SpeakerErrors:
    """Sum words and errors of utterances (columns seed (optional), speaker, words, errors) by seed and speaker."""
    frame = utterances if "seed" in utterances else utterances.assign(seed=0)
    sums = frame.groupby(["seed", "speaker"])[["words", "errors"]].sum()
    words = sums["words"].unstack("speaker")
    if words.isna().to_numpy().any() or (words.nunique() > 1).any():
        raise ValueError("seeds of one run were scored on different utterances; decode every seed on the same parts")
    if words.size == 0 or words.iloc[0].sum() == 0:
        raise ValueError("the references hold no words, so there is no word error rate; score a transcribed part")
    return SpeakerErrors(
        seeds=tuple(words.index),
        speakers=tuple(words.columns),
        words=words.iloc[0].to_numpy(dtype=np.int64),
        errors=sums["errors"].unstack("speaker").to_numpy(dtype=np.int64),
    )


def _draw(system: SpeakerErrors, *, rng: np.random.Generator, replicates: int) -> Draws:
    """Return how often each seed (R, K) and each speaker (R, S) is drawn in each replicate."""
    return (_multiplicities(len(system.seeds), rng, replicates), _multiplicities(len(system.speakers), rng, replicates))


def _multiplicities(size: int, rng: np.random.Generator, replicates: int) -> NDArray[np.int64]:
    draws = max(size - 1, 1)  # a single seed is kept as it is
    return rng.multinomial(draws, np.full(size, 1 / size), size=replicates)


def _resampled_wer(system: SpeakerErrors, *, draws: Draws) -> NDArray[np.float64]:
    """Return the word error rate of each replicate: shape (R,); NaN where only wordless speakers were drawn."""
    seeds, speakers = draws
    errors = ((seeds @ system.errors) * speakers).sum(axis=1)
    words = seeds.sum(axis=1) * (speakers @ system.words)
    return np.divide(errors, words, out=np.full(len(words), np.nan), where=words > 0)


def _percentiles(values: NDArray[np.float64], *, confidence: float) -> tuple[float, float]:
    """Return the bounds of a percentile interval; NaN where no value is finite."""
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return math.nan, math.nan
    # rounded, because 0.05 is a little more than 1 - 0.95
    beyond = math.floor(round((1 - confidence) / 2 * (len(finite) + 1), 6)) - 1
    beyond = max(beyond, 0)  # with too few replicates for the level: their range
    return float(finite[beyond]), float(finite[-1 - beyond])


def _check_pair(left: SpeakerErrors, right: SpeakerErrors) -> None:
    if left.seeds != right.seeds:
        raise ValueError(f"a comparison needs the same seeds on both sides, found {left.seeds} and {right.seeds}")
    if left.speakers != right.speakers or not np.array_equal(left.words, right.words):
        raise ValueError("a comparison needs the same utterances on both sides; score both runs on the same parts")
