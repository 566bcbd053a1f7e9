"""How late a recogniser writes its words: emission latency against a forced alignment of the reference.

A word's latency is the time at which the recogniser emitted its last token minus the time at which the word ends in the
speech, for every reference word that the hypothesis has right; negative where a word is guessed before it ends.
Mahadeokar et al. 2021 (alignment-restricted RNN-T) trade such delays of emission for accuracy; icefall reports them for
the words that are right. The partial recognition latency of Yu et al. 2021 (FastEmit; its PR50 and PR90 are percentiles
over utterances) is about the end of an utterance, not about every word.

Emissions, and the ends of words that no pause follows, lie on the encoders' frames: percentiles move in such steps.

Two recognisers of different word error rates are timed on different words. To compare them on the words that both have
right, subtract their latencies: `latency_summary(left.assign(latency=left["latency"] - right["latency"]), ...)`.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import jiwer
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from asr_distill.scoring.significance import _multiplicities, _percentiles
from asr_distill.scoring.word_errors import _check_ids, _frame, _keys, _read_lines
from asr_distill.text.normalise import normalise

COLUMNS = ["part", "id", "speaker", "place", "word", "latency"]
PERCENTILE = 90
ONE_SPEAKER = "one speaker only has words that are right: how the latency varies between speakers cannot be estimated"
NO_WORD = "no word is right, so none has a latency"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds, with their interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencySummary:
    """Latency of one system on one part; NaN comes with a reason."""

    mean: Estimate
    percentile_90: Estimate
    """Not exceeded by 90 % of the words: the smallest such latency among them."""
    words: int
    """Words that are right, of all seeds."""
    coverage: float
    """Their share of the reference words."""
    speakers: int
    reason: str = ""


def read_word_times(path: Path) -> pd.DataFrame:
    """Read word ends or emissions: columns part, id and words, lists of [word, seconds]."""
    return _frame(list(_read_lines(path)), columns=["part", "id", "words"], where=str(path))


def word_latencies(references: pd.DataFrame, ends: pd.DataFrame, emissions: pd.DataFrame) -> pd.DataFrame:
    """Time each reference word, after aligning it with the hypothesis as for the word error rate.

    Args:
        references: columns part, id, speaker, text.
        ends: columns part, id, words: where the words of each reference end in the speech.
        emissions: columns part, id, words: when the words of each hypothesis were emitted; an utterance without a
            hypothesis has no word right.

    Returns:
        One row per reference word, in order: part, id, speaker, place in the utterance from 0, word, and latency in
        seconds, NaN where the hypothesis does not have the word right. So the rows of two systems are the same words.

    Raises:
        ValueError: for references that are not aligned or have other words than their alignment, and as `word_errors`.
    """
    _check_ids(references, emissions)
    ends_of = dict(zip(_keys(ends), ends["words"], strict=True))
    said = dict(zip(_keys(emissions), emissions["words"], strict=True))
    expected = [normalise(text).split() for text in references["text"]]
    heard = [said.get(key, []) for key in _keys(references)]
    matches = _matches(expected, heard)
    rows = []
    for (part, name), speaker, words, hypothesis, match in zip(
        _keys(references), references["speaker"], expected, heard, matches, strict=True
    ):
        aligned = ends_of.get((part, name))
        if aligned is None or [word for word, _ in aligned] != words:
            found = "none" if aligned is None else "one of other words"
            raise ValueError(f"alignment: {found} for utterance '{name}' of {part}; align the references again")
        for place, (word, end) in enumerate(aligned):
            latency = hypothesis[match[place]][1] - end if place in match else math.nan
            rows.append((part, name, speaker, place, word, latency))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"latency": "float64"})


def latency_summary(
    latencies: pd.DataFrame, *, rng: np.random.Generator, replicates: int = 2000, confidence: float = 0.95
) -> LatencySummary:
    """Return mean and 90th percentile of one system's latencies on one part, over the words of all its seeds.

    Intervals are percentiles of a bootstrap of whole speakers, crossed with seeds where there are several, as those of
    word error rates (see significance.py).

    Args:
        latencies: columns seed (optional), speaker and latency, one row per reference word; NaN where there is none.
        rng: source of the resampling.
        replicates: number of resampled test sets.
        confidence: coverage of the intervals.

    Raises:
        ValueError: when there are no reference words.
    """
    if latencies.empty:
        raise ValueError("the references hold no words, so there is no latency; score a transcribed part")
    frame = latencies if "seed" in latencies else latencies.assign(seed=0)
    (seed, seeds), (speaker, speakers) = (pd.factorize(frame[name], sort=True) for name in ("seed", "speaker"))
    seconds = frame["latency"].to_numpy()
    order = np.argsort(seconds, kind="stable")[: np.isfinite(seconds).sum()]  # NaN comes last
    seconds, seed, speaker = seconds[order], seed[order], speaker[order]
    values = _mean_and_percentile(seconds, np.ones(len(seconds), dtype=np.int64))
    bounds = [(math.nan, math.nan)] * 2
    heard = len(np.unique(speaker))
    reason = NO_WORD if not heard else ONE_SPEAKER if heard == 1 else ""
    if not reason:
        draws = zip(*(_multiplicities(len(names), rng, replicates) for names in (seeds, speakers)), strict=True)
        drawn = [_mean_and_percentile(seconds, seed_counts[seed] * counts[speaker]) for seed_counts, counts in draws]
        bounds = [_percentiles(column, confidence=confidence) for column in np.array(drawn).T]
    mean, percentile = (Estimate(value=v, low=low, high=high) for v, (low, high) in zip(values, bounds, strict=True))
    return LatencySummary(
        mean=mean,
        percentile_90=percentile,
        words=len(seconds),
        coverage=len(seconds) / len(frame),
        speakers=len(speakers),
        reason=reason,
    )


def _matches(expected: list[list[str]], heard: list[list[tuple[str, float]]]) -> list[dict[int, int]]:
    """Return for each utterance which place of the hypothesis has which place of the reference right."""
    if not expected:
        return []
    output = jiwer.process_words(
        [" ".join(words) for words in expected], [" ".join(word for word, _ in words) for words in heard]
    )
    return [
        {
            chunk.ref_start_idx + step: chunk.hyp_start_idx + step
            for chunk in chunks
            if chunk.type == "equal"
            for step in range(chunk.ref_end_idx - chunk.ref_start_idx)
        }
        for chunks in output.alignments
    ]


def _mean_and_percentile(seconds: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return mean and percentile of ascending latencies, each as often as `counts` says; NaN where there are none."""
    total = int(counts.sum())
    if not total:
        return math.nan, math.nan
    rank = -(-PERCENTILE * total // 100)
    return float(counts @ seconds) / total, float(seconds[np.searchsorted(counts.cumsum(), rank)])
