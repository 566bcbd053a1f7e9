"""Which of a teacher's transcripts of unlabelled speech a run trains on."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from asr_distill.experiment import PseudoLabelChoice

Line = Mapping[str, Any]


def read_pseudo_labels(
    paths: Sequence[Path], *, choice: PseudoLabelChoice | None = None, where: str = "pseudo_labels"
) -> dict[str, str]:
    """Return transcripts by utterance id: of those that the transcribing job kept, the ones that are chosen.

    Args:
        paths: what the transcribing jobs wrote, a line per utterance.
        choice: the run's own; without one, all that were kept.
        where: names the run and its key, for errors.

    Raises:
        ValueError: when the choice leaves no transcript.
    """
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    kept = [line for line in lines if line["kept"]]
    if choice is not None and kept:
        kept = _chosen(kept, choice, where=where)
    return {line["id"]: line["text"] for line in kept}


def _chosen(lines: Sequence[Line], choice: PseudoLabelChoice, *, where: str) -> list[Line]:
    """Return the lines within the limits of length and score, and of these the best share by score per token."""
    limits = Limits.of_length(choice, median=statistics.median(line["tokens_per_second"] for line in lines))
    fitting = [line for line in lines if limits.fit(line["tokens_per_second"])]
    least = -math.inf if choice.min_score_per_token is None else choice.min_score_per_token
    good = [line for line in fitting if line["score_per_token"] >= least]
    if not good:
        best = max((line["score_per_token"] for line in fitting), default=None)
        _refuse(choice, limits, kept=len(lines), fitting=len(fitting), best=best, where=where)
    ranked = sorted(good, key=lambda line: (-line["score_per_token"], line["id"]))
    return ranked[: _share(choice, len(ranked))]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a run's choice comes down to, for one transcript at a time; without a choice, every one that was kept."""

    shortest: float = 0.0
    """Tokens per second."""
    longest: float = math.inf
    median: float = math.nan
    """Of the transcripts' tokens per second, where lengths are limited."""
    least: float = -math.inf
    """Score per token."""
    places: int | None = None
    """How many are left for those with exactly the least score, which are taken in the order of their ids; None: all
    can be taken."""

    @classmethod
    def of_length(cls, choice: PseudoLabelChoice, *, median: float) -> Limits:
        """Return the limits of length alone; `median` is in tokens per second."""
        longest = math.inf if choice.max_length_ratio is None else choice.max_length_ratio * median
        return cls(shortest=choice.min_length_ratio * median, longest=longest, median=median)

    def fit(self, speed: float) -> bool:
        """Tell whether a transcript of so many tokens per second is as long as it should be."""
        return self.shortest <= speed <= self.longest

    def take(self, scored: Scored) -> bool:
        """Tell whether a transcript is kept, fits, and is better than the least good that can be taken."""
        if not (scored.kept and self.fit(scored.speed)):
            return False
        return scored.score > self.least or (self.places is None and scored.score == self.least)

    def tie(self, scored: Scored) -> bool:
        """Tell whether a transcript may or may not be taken, by its id."""
        return self.places is not None and scored.kept and self.fit(scored.speed) and scored.score == self.least


class Scored(NamedTuple):
    """What of a transcript decides whether it is trained on."""

    score: float
    """Per token."""
    speed: float
    """Tokens per second."""
    kept: bool
    seconds: float


_SCORES = re.compile(
    rb'"score_per_token": ([^,]+), "tokens": \d+, "tokens_per_second": ([^,]+), "kept": (true|false), '
    rb'"reason": "[^"]*", "duration": ([^,}]+)}$'
)
"""The end of a line; reading it so takes a third of the time of reading JSON. A quotation mark in a text has a
backslash before it."""


def read_scores(path: Path, *, offset: int = 0) -> Iterator[tuple[int, bytes, Scored]]:
    """Yield the lines of transcripts of speech in shards, from a place in bytes on: its place, itself, its scores.

    Raises:
        ValueError: where a line is not what a transcribing job writes of such speech.
    """
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            found = _SCORES.search(line)
            if found is None:
                raise ValueError(f"{path}: not of speech in shards, or damaged, at byte {offset}; remove it, run again")
            score, speed, kept, seconds = found.groups()
            yield offset, line, Scored(float(score), float(speed), kept == b"true", float(seconds))
            offset += len(line)


def stream_limits(paths: Sequence[Path], *, choice: PseudoLabelChoice | None, where: str) -> Limits:
    """Return the limits that a choice means for these transcripts, without keeping any.

    Scores are written with four decimals and lengths with three, so counting how often each value occurs takes memory
    that does not depend on the number of transcripts, and median and quantile are exact.

    Raises:
        ValueError: when the choice leaves no transcript.
    """
    if choice is None:
        return Limits()
    limits = Limits()
    if choice.min_length_ratio or choice.max_length_ratio is not None:
        lengths = Counter(scored.speed for scored in _kept(paths))
        if lengths:
            limits = Limits.of_length(choice, median=_median(lengths))
    scores: Counter[float] = Counter()
    kept = 0
    for scored in _kept(paths):
        kept += 1
        if limits.fit(scored.speed):
            scores[scored.score] += 1
    if not kept:
        return limits
    least = -math.inf if choice.min_score_per_token is None else choice.min_score_per_token
    good = {score: count for score, count in scores.items() if score >= least}
    if not good:
        _refuse(choice, limits, kept=kept, fitting=scores.total(), best=max(scores, default=None), where=where)
    wanted = _share(choice, sum(good.values()))
    for score in sorted(good, reverse=True):
        if good[score] >= wanted:
            break
        wanted -= good[score]
    places = None if good[score] == wanted else wanted
    return replace(limits, least=score, places=places)


def _kept(paths: Iterable[Path]) -> Iterator[Scored]:
    return (scored for path in paths for _, _, scored in read_scores(path) if scored.kept)


def _median(counts: Counter[float]) -> float:
    """Return the median of values that occur so often."""
    total, middle, before = counts.total(), [], 0
    for value in sorted(counts):
        before += counts[value]
        middle += [value] * ((before > (total - 1) // 2) + (before > total // 2) - len(middle))
        if len(middle) == 2:
            break
    return sum(middle) / 2


def _share(choice: PseudoLabelChoice, number: int) -> int:
    return max(1, int(choice.keep_share * number + 0.5))


def _refuse(
    choice: PseudoLabelChoice, limits: Limits, *, kept: int, fitting: int, best: float | None, where: str
) -> None:
    """Raise ValueError: the choice leaves nothing."""
    if not fitting:
        raise ValueError(
            f"{where}: none of the teacher's {kept} transcripts has from {limits.shortest:.2f} to {limits.longest:.2f} "
            f"tokens per second; the median is {limits.median:.2f}; relax min_length_ratio or max_length_ratio"
        )
    raise ValueError(
        f"{where}: none of the teacher's transcripts has a score per token of {choice.min_score_per_token:g} or more; "
        f"the best of {fitting} has {best:.3f}; relax min_score_per_token"
    )
