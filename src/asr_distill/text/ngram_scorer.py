"""Scores of an n-gram model for many histories at once, as a search over a batch needs them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_distill.text.ngram import BEGIN, NgramModel

_EMPTY = 0
"""The state of a history of which nothing is known."""


class NgramScorer:
    """Walks through the states of a model: the known n-grams shorter than its order, as the ends of histories.

    State 0 is the empty end; the others are numbered as the n-grams are, by length and then by words. The scores of all
    words after a state are worked out when they are first asked for, and kept.
    """

    def __init__(self, model: NgramModel):
        self._width = model.vocabulary + 1
        self._order = model.order
        self.end: int = model.vocabulary
        """The word `</s>`."""
        sizes = [len(keys) for keys in model.keys]
        self._first = np.cumsum([0, 1, *sizes[:-1]])  # the first state of every length
        histories = [keys + self._first[n] * self._width for n, keys in enumerate(model.keys)]
        self._keys = np.concatenate(
            histories
        )  # of all n-grams: the state before the last word, and that word; ascending
        self._log_probs = np.concatenate(model.log_probs)
        self._backoffs = np.concatenate([[0.0], *model.backoffs])
        self._followers = np.searchsorted(self._keys, np.arange(self._first[-1] + 1) * self._width)
        self._shorter = self._find_shorter()
        self.start: int = int(self._known_end(np.array([_EMPTY]), np.array([BEGIN]))[0]) if self._order > 1 else _EMPTY
        """The state before the first token of a sentence."""
        self.forget()

    def forget(self) -> None:
        """Drop the scores kept so far."""
        self._rows = np.empty((0, self._width))
        self._row_of = np.full(self._first[-1], -1, dtype=np.int32)
        self._used = 0

    @property
    def kept_bytes(self) -> int:
        """Size of the scores kept so far."""
        return self._rows.nbytes

    def score(self, states: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return log P(word | state) for integer arrays that broadcast against each other."""
        self._work_out(np.unique(states))
        return self._rows[self._row_of[states], words]

    def advance(self, states: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the states after words, two arrays of one shape."""
        if self._order == 1:
            return np.zeros_like(states)
        full = states >= self._first[-2]  # those have no room for another word
        return self._known_end(np.where(full, self._shorter[states], states), words)

    def _known_end(self, states: NDArray[np.int64], words: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the longest known end of state and word."""
        found = np.zeros_like(states)
        waiting = np.ones(states.shape, dtype=bool)
        while waiting.any():
            wanted = states[waiting] * self._width + words[waiting]
            places = np.searchsorted(self._keys, wanted)
            found[waiting] = places + 1
            waiting[waiting] = self._keys[np.minimum(places, len(self._keys) - 1)] != wanted
            states = self._shorter[states]
        return found

    def _find_shorter(self) -> NDArray[np.int64]:
        """Return, for every state, the longest known end of all its words but the first."""
        self._shorter = np.zeros(self._first[-1], dtype=np.int64)
        for start, stop in zip(self._first[2:-1], self._first[3:], strict=True):  # from two words on
            histories, words = np.divmod(self._keys[start - 1 : stop - 1], self._width)
            self._shorter[start:stop] = self._known_end(self._shorter[histories], words)
        return self._shorter

    def _work_out(self, states: NDArray[np.int64]) -> None:
        """Fill the rows of different states that have none: what backing off gives, and over it what is known."""
        states = states[self._row_of[states] < 0]
        if not states.size:
            return
        self._work_out(np.unique(self._shorter[states[states != _EMPTY]]))
        states = states[self._row_of[states] < 0]  # those that no other one was built upon
        rows = np.arange(self._used, self._used + len(states))
        self._used += len(states)
        if self._used > len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty((max(self._used, 256), self._width))])
        self._row_of[states] = rows
        shorter = self._rows[self._row_of[self._shorter[states]]]
        self._rows[rows] = np.where((states != _EMPTY)[:, None], shorter + self._backoffs[states][:, None], -np.inf)
        first, count = self._followers[states], np.diff(self._followers)[states]
        places = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        self._rows[np.repeat(rows, count), self._keys[places] % self._width] = self._log_probs[places]
