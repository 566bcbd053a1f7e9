"""N-gram language models over token ids: interpolated modified Kneser-Ney smoothing, written as an ARPA file.

The estimate of Chen and Goodman, *An Empirical Study of Smoothing Techniques for Language Modeling* (TR-10-98, Harvard
1998; equation numbers are theirs), as KenLM's `lmplz` makes it (Heafield et al. 2013):

- Raw counts at the highest order. Below it, how many different words stand before an n-gram; an n-gram that begins
  with `<s>`, before which nothing stands, keeps its raw count.
- Three discounts per order from the counts of counts (eq. 26), `FALLBACK` where the text is too small or too regular.
- Every order is interpolated with the one below, the unigrams with the uniform distribution over `vocabulary` words:
  all tokens but the blank, which no sentence holds, and `</s>`. So an unseen token has a probability too.
- Pruned n-grams leave their whole count to the back-off weight of their history; the discounts ignore the pruning.
- Interpolation is folded into the probabilities, and the ARPA file is an ordinary back-off model.

Our figures are those of `lmplz` 0.3.0 to the digits that it prints, but for a slip there: in the counts of counts, the
last n-gram of every lower order stands with its raw count.

Words of the ARPA file are decimal token ids, `<unk>` for the unknown token, `<s>` and `</s>`.
"""

from __future__ import annotations

import itertools
import logging
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_distill.files import replacing
from asr_distill.text.tokenizer import UNKNOWN

log = logging.getLogger(__name__)

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of an order whose counts of counts allow none in (0, count]: those of `lmplz --discount_fallback`. Unigrams
need them nearly always, for every one of a few hundred tokens stands behind more than four others."""
BEGIN = 0
"""Inside this module `<s>` takes the blank's place, and `</s>` is the word after the last token."""


def estimate(
    sentences: Iterable[Sequence[int]], *, order: int, vocabulary: int, prune: Sequence[int] = ()
) -> NgramModel:
    """Estimate a model of the n-grams of up to `order` tokens; sentence ends are added here.

    The sentences are read once and kept as 32-bit integers; the peak is about 80 bytes per token.

    Args:
        sentences: token ids from 1 to `vocabulary` - 1; an empty sentence counts as one.
        order: the longest n-gram; the model's is lower where no n-gram is that long, or all are pruned. KenLM reads 2
            to 6 in its usual build.
        vocabulary: the tokenizer's number of tokens, blank and unknown included.
        prune: per order, from the unigrams on, the raw count up to which n-grams are dropped; the last number stands
            for the orders above it, too. `(0, 0, 1)` drops singletons of three tokens and more.

    Raises:
        ValueError: for an order or a vocabulary too small, thresholds that fall or prune unigrams, a token outside the
            vocabulary, or no sentences.
    """
    if order < 1 or vocabulary <= UNKNOWN:
        raise ValueError(f"n-grams: found order {order}, vocabulary {vocabulary}; write at least 1 and {UNKNOWN + 1}")
    thresholds = _thresholds(prune, order=order)
    words, depth = _positions(sentences, vocabulary=vocabulary)
    levels = list(_count(words, depth, order=order, width=vocabulary + 1))
    _adjust(levels)
    return _smooth(levels, vocabulary=vocabulary, thresholds=thresholds)


@dataclass(frozen=True, eq=False)
class NgramModel:
    """A back-off model; logarithms are natural, except in the ARPA file."""

    vocabulary: int
    """Number of tokens, blank included; of words too, since `</s>` is one and the blank is none."""
    keys: tuple[NDArray[np.int64], ...]
    """Per order, ascending: the index of the first n-1 words among the n-grams one shorter, times (vocabulary + 1),
    plus the last word."""
    log_probs: tuple[NDArray[np.float64], ...]
    backoffs: tuple[NDArray[np.float64], ...]
    """Log weights of the distribution one order down; 0 where nothing follows. None for the highest order."""
    discounts: tuple[tuple[float, float, float], ...] = ()
    """Per order: of n-grams with count 1, 2, and more. Empty where the model was read from a file."""

    @property
    def order(self) -> int:
        """Number of tokens of the longest n-grams."""
        return len(self.keys)

    def log_prob(self, history: Sequence[int], token: int | None) -> float:
        """Return log P(token | the sentence's tokens so far); None is the sentence's end. Slow."""
        context = (BEGIN, *history)[max(0, len(history) + 2 - self.order) :]
        word = self.vocabulary if token is None else token
        weight = 0.0
        while (index := self._find((*context, word))) is None:
            known = self._find(context)
            weight += 0.0 if known is None else self.backoffs[len(context) - 1][known]
            context = context[1:]
        return float(weight + self.log_probs[len(context)][index])

    def perplexity(self, sentences: Iterable[Sequence[int]]) -> float:
        """Return the perplexity per token, sentence ends included. Slow."""
        scores = [
            self.log_prob(sentence[:position], token)
            for sentence in sentences
            for position, token in enumerate((*sentence, None))
        ]
        return math.exp(-sum(scores) / len(scores))

    def write_arpa(self, path: Path) -> None:
        """Write the model as text, with log base 10 in seven digits: the same bytes for the same sentences."""
        spellings = ["<s>", *map(str, range(1, self.vocabulary)), "</s>"]
        spellings[UNKNOWN] = "<unk>"
        with replacing(path) as temporary, temporary.open("w", encoding="ascii") as file:
            file.write("\\data\\\n")
            file.writelines(f"ngram {n}={len(keys)}\n" for n, keys in enumerate(self.keys, start=1))
            texts = [""]
            for n, keys in enumerate(self.keys, start=1):
                histories, words = np.divmod(keys, self.vocabulary + 1)
                texts = [f"{texts[h]}{spellings[w]} " for h, w in zip(histories.tolist(), words.tolist(), strict=True)]
                file.write(f"\n\\{n}-grams:\n")
                file.writelines(self._lines(n, texts))
            file.write("\n\\end\\\n")

    def _lines(self, n: int, texts: Sequence[str]) -> Iterator[str]:
        probs = (np.minimum(self.log_probs[n - 1], 0) / math.log(10)).tolist()
        if n == self.order:
            for prob, text in zip(probs, texts, strict=True):
                yield f"{prob:.7g}\t{text[:-1]}\n"
        else:
            backoffs = (self.backoffs[n - 1] / math.log(10)).tolist()
            for prob, text, backoff in zip(probs, texts, backoffs, strict=True):
                yield f"{prob:.7g}\t{text[:-1]}\t{backoff:.7g}\n"

    def _find(self, words: Sequence[int]) -> int | None:
        """Return the index of an n-gram among those of its order."""
        index = 0
        for word, keys in zip(words, self.keys[: len(words)], strict=True):
            key = index * (self.vocabulary + 1) + word
            index = int(np.searchsorted(keys, key))
            if index == len(keys) or keys[index] != key:
                return None
        return index if words else None


@dataclass
class _Level:
    """The different n-grams of one order, sorted by `keys` (see `NgramModel`)."""

    keys: NDArray[np.int64]
    history: NDArray[np.int64]
    """Index of all words but the last among the n-grams one shorter."""
    suffix: NDArray[np.int64]
    """Index of all words but the first."""
    begins: NDArray[np.bool_]
    """Whether the first word is `<s>`."""
    raw: NDArray[np.int64]
    adjusted: NDArray[np.int64]


def _thresholds(prune: Sequence[int], *, order: int) -> list[int]:
    given = [0, *prune[1:]]
    if list(prune[:1]) not in ([], [0]) or len(prune) > order or given != sorted(given):
        raise ValueError(
            f"prune: found {list(prune)}; write up to {order} numbers that begin with 0 and never fall: [0, 0, 1], say"
        )
    return given + given[-1:] * (order - len(given))


def _positions(sentences: Iterable[Sequence[int]], *, vocabulary: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return all sentences behind one another, with their marks, and each word's position in its sentence."""
    flat, sizes = array("i"), array("i")
    for sentence in sentences:
        flat.extend(sentence)
        sizes.append(len(sentence))
    if not sizes:
        raise ValueError("n-grams: no sentences to estimate the model on; is the text empty?")
    tokens, lengths = np.frombuffer(flat, dtype=np.int32), np.frombuffer(sizes, dtype=np.int32).astype(np.int64)
    wrong = np.flatnonzero((tokens < 1) | (tokens >= vocabulary))
    if wrong.size:
        number = int(np.searchsorted(np.cumsum(lengths), wrong[0], side="right")) + 1
        raise ValueError(
            f"n-grams: sentence {number} holds the token {tokens[wrong[0]]}, which is none of 1 to {vocabulary - 1}; "
            "was it encoded by another tokenizer?"
        )
    ends = np.cumsum(lengths + 2) - 1
    starts = ends - lengths - 1
    inside = np.ones(ends[-1] + 1, dtype=bool)
    inside[starts] = inside[ends] = False
    words = np.full(len(inside), vocabulary, dtype=np.int32)
    words[starts] = BEGIN
    words[inside] = tokens
    depth = np.arange(len(inside), dtype=np.int32) - np.repeat(starts, lengths + 2).astype(np.int32)
    return words, depth


def _count(words: NDArray[np.int32], depth: NDArray[np.int32], *, order: int, width: int) -> Iterator[_Level]:
    """Yield the n-grams of every order. Sorting finds the equal ones, each named by its history's index and a word."""
    every = np.arange(width)  # unseen tokens are unigrams too
    raw = np.bincount(words, minlength=width)
    nowhere = np.zeros(width, dtype=np.int64)
    yield _Level(every, nowhere, nowhere, every == BEGIN, raw, raw)
    ending = words  # by position: the index of the n-gram that ends there
    for n in range(2, order + 1):
        at = np.flatnonzero(depth >= n - 1)
        keys = ending[at - 1].astype(np.int64) * width + words[at]
        keys, first, index, raw = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        suffix, begins = ending[at[first]].astype(np.int64), depth[at[first]] == n - 1
        yield _Level(keys, keys // width, suffix, begins, raw, raw)
        ending = np.full(len(words), -1, dtype=np.int32)
        ending[at] = index


def _adjust(levels: Sequence[_Level]) -> None:
    """Replace the counts below the highest order by the numbers of different words before the n-grams."""
    for level, longer in itertools.pairwise(levels):
        before = np.bincount(longer.suffix, minlength=len(level.keys))
        level.adjusted = np.where(level.begins, level.raw, before)
    levels[0].adjusted = np.where(levels[0].begins, 0, levels[0].adjusted)  # nothing predicts <s>


def _smooth(levels: Sequence[_Level], *, vocabulary: int, thresholds: Sequence[int]) -> NgramModel:
    """Turn adjusted counts into probabilities and back-off weights, and drop what is pruned."""
    keys, log_probs, backoffs, discounts = [], [], [], []
    lower = np.array([1 / vocabulary])  # probabilities one order down, pruned n-grams included
    places = np.zeros(1, dtype=np.int64)  # where the n-grams one shorter are, once some are dropped
    survivors = np.array([True])
    for level, threshold in zip(levels, thresholds, strict=True):
        kept = (level.raw > threshold) | (threshold == 0)
        amounts = _discounts(level.adjusted)
        discount = np.array([0.0, *amounts])[np.minimum(level.adjusted, 3)]
        totals = np.bincount(level.history, weights=level.adjusted, minlength=len(lower))
        freed = np.bincount(level.history, weights=np.where(kept, discount, level.adjusted), minlength=len(lower))
        weight = np.divide(freed, totals, out=np.ones(len(totals)), where=totals > 0)
        own = (level.adjusted - discount) / totals[level.history]
        lower = own + weight[level.history] * lower[level.suffix]
        backoffs.append(np.log(weight[survivors]))
        keys.append((places[level.history] * (vocabulary + 1) + level.keys % (vocabulary + 1))[kept])
        log_probs.append(np.log(lower[kept]))
        discounts.append(amounts)
        places, survivors = np.cumsum(kept) - 1, kept
        log.info("%d-grams: %d of %d kept, discounts %.3f %.3f %.3f", len(keys), kept.sum(), len(kept), *amounts)
    order = sum(len(each) > 0 for each in keys)
    return NgramModel(
        vocabulary, tuple(keys[:order]), tuple(log_probs[:order]), tuple(backoffs[1:order]), tuple(discounts[:order])
    )


def _discounts(counts: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the discounts of counts 1, 2, and 3 or more (eq. 26)."""
    once, twice, thrice, four_times = (int(np.count_nonzero(counts == count)) for count in (1, 2, 3, 4))
    if not (once and twice and thrice):
        return FALLBACK
    y = once / (once + 2 * twice)
    found = (1 - 2 * y * twice / once, 2 - 3 * y * thrice / twice, 3 - 4 * y * four_times / thrice)
    return found if min(found) > 0 else FALLBACK
