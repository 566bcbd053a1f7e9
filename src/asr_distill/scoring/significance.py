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

Percentile intervals: they follow the skew of a ratio such as WER, need no variance estimate within a replicate, and
come from the same replicates as the p-value, so the two cannot contradict each other. BCa would estimate its
acceleration from the same handful of speakers. With fewer than about ten speakers they are still somewhat too short.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ONE_SPEAKER = "one speaker only: how the word error rate varies between speakers cannot be estimated"
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
    p_value: float
    """Two-sided; of the hypothesis that the word error rates are equal."""
    confidence: float
    replicates: int
    speakers: int
    words: int
    seeds: int
    reason: str = ""
    """Why the interval is NaN."""


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
    differences = _resampled_wer(ours, draws=draws) - _resampled_wer(theirs, draws=draws)
    low, high = _percentiles(differences, confidence=confidence)
    alone = len(ours.speakers) == 1
    return Difference(
        left=ours.wer,
        right=theirs.wer,
        difference=ours.wer - theirs.wer,
        low=math.nan if alone else low,
        high=math.nan if alone else high,
        relative=(ours.wer - theirs.wer) / theirs.wer if theirs.wer else math.nan,
        p_value=math.nan if alone else _two_sided_p(differences),
        confidence=confidence,
        replicates=replicates,
        speakers=len(ours.speakers),
        words=int(ours.words.sum()),
        seeds=len(ours.seeds),
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
    tail = (1 - confidence) / 2
    low, high = np.quantile(values[np.isfinite(values)], [tail, 1 - tail])
    return float(low), float(high)


def _two_sided_p(differences: NDArray[np.float64]) -> float:
    """Return twice the smaller share of replicates on one side of zero, counting the observed sample as one more."""
    finite = differences[np.isfinite(differences)]
    smaller = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return min(1.0, 2 * (smaller + 1) / (len(finite) + 1))


def _check_pair(left: SpeakerErrors, right: SpeakerErrors) -> None:
    if left.seeds != right.seeds:
        raise ValueError(f"a comparison needs the same seeds on both sides, found {left.seeds} and {right.seeds}")
    if left.speakers != right.speakers or not np.array_equal(left.words, right.words):
        raise ValueError("a comparison needs the same utterances on both sides; score both runs on the same parts")
