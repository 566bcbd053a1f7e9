"""CTC prefix beam search with an n-gram language model, for many utterances at once.

Hannun et al. 2014 (*First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs*): a
hypothesis is a token sequence, with the probabilities of its alignments that end in the blank and of those that end in
its last token. With a beam that holds every sequence the score is exact. All utterances advance a frame together, in
arrays over B utterances and K hypotheses. The language model scores a token where it is appended, and the sentence's
end after the last frame.

Layout legend: B utterances, N frames, V vocabulary (blank is 0), K hypotheses, S tokens tried per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr_distill.decoding.ctc import BeamSettings
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.text.arpa import read_arpa
from asr_distill.text.ngram_scorer import NgramScorer
from asr_distill.text.tokenizer import BLANK

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_EMPTY_HASH, _DEAD, _NO_PARENT = 0x2545F4914F6CDD1D, 1, 2
_KEPT_SCORES = 1 << 28
"""Bytes of language model scores that are kept from one batch to the next."""


class CTCBeamSearch:
    """Finds the best token sequences for the output of a CTC head.

    `beam_size_token` counts tokens beside the blank, which is always tried.
    """

    def __init__(self, settings: BeamSettings, *, vocabulary: int, arpa: Path | None = None):
        """Read the language model, if one is given.

        Raises:
            ValueError: as `read_arpa` does, or for a language model's weight without a language model.
        """
        self.vocabulary = vocabulary
        self._scorer = None if arpa is None else NgramScorer(read_arpa(arpa, vocabulary=vocabulary))
        self.settings = self._checked(settings)

    def with_settings(self, settings: BeamSettings) -> Self:
        """Return a search with other settings that shares the language model."""
        other = copy(self)
        other.settings = self._checked(settings)
        return other

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
        """Transcribe natural log-probabilities (B, N, V) of utterances with lengths (B,) up to N.

        Raises:
            ValueError: where V is not the tokenizer's, or a log-probability is no number.
        """
        if log_probs.shape[2] != self.vocabulary:
            raise ValueError(f"log_probs: of {log_probs.shape[2]} tokens; the tokenizer has {self.vocabulary}")
        if self._scorer is not None and self._scorer.kept_bytes > _KEPT_SCORES:
            self._scorer.forget()
        order = torch.argsort(lengths.cpu(), descending=True, stable=True)
        frames, sizes = log_probs.detach().float().cpu()[order].numpy(), lengths.cpu()[order].numpy()
        hypotheses = self._search(frames, sizes)
        return [hypotheses[place] for place in torch.argsort(order).tolist()]

    def _checked(self, settings: BeamSettings) -> BeamSettings:
        if settings.lm_weight and self._scorer is None:
            raise ValueError(f"lm_weight: {settings.lm_weight}, but there is no language model; name its ARPA file")
        return settings

    def _search(self, frames: NDArray, sizes: NDArray[np.int64]) -> list[Hypothesis]:
        """Search (B, N, V), longest utterance first."""
        beam = _Beam.initial(len(sizes), state=0 if self._scorer is None else self._scorer.start)
        trace: list[tuple[NDArray, NDArray]] = []
        best, scores = np.empty(len(sizes), dtype=np.int64), np.empty(len(sizes))
        for frame in range(max(sizes, default=0) + 1):
            running = int(np.count_nonzero(sizes > frame))
            ended = beam.rows(slice(running, None))
            best[running : len(beam.state)], scores[running : len(beam.state)] = self._best(ended)
            if not running:
                break
            now = frames[:running, frame].astype(np.float64)
            if np.isnan(now).any():
                raise ValueError(f"log_probs: not a number in frame {frame}; did the model's training diverge?")
            beam, parents, appended = self._advance(beam.rows(slice(running)), now)
            trace.append((parents, appended))
        return [Hypothesis(*found) for found in zip(_trace_back(trace, best), scores.tolist(), strict=True)]

    def _best(self, beam: _Beam) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return place and score of the best hypotheses once their utterances have ended."""
        scores = self._merge(beam.ends_blank, beam.ends_token) + beam.bonus
        if self.settings.lm_weight and beam.state.size:
            scores = scores + self.settings.lm_weight * self._scorer.score(beam.state, np.array(self._scorer.end))
        best = scores.argmax(axis=1)
        return best, np.take_along_axis(scores, best[:, None], axis=1)[:, 0]

    def _advance(self, beam: _Beam, frame: NDArray[np.float64]) -> tuple[_Beam, NDArray, NDArray]:
        """Return the beam after a frame (B, V), and for each hypothesis its parent's place and the token it added."""
        tokens = _likeliest(frame, self.settings.beam_size_token)
        total = self._merge(beam.ends_blank, beam.ends_token)
        ends_blank = total + frame[:, [BLANK]]
        ends_token = beam.ends_token + np.take_along_axis(frame, beam.last, axis=1)
        repeats = tokens[:, None] == beam.last[:, :, None]  # need a blank between
        extended = np.where(repeats, beam.ends_blank[:, :, None], total[:, :, None])
        extended = extended + np.take_along_axis(frame, tokens, axis=1)[:, None]
        self._move_to_known(beam, tokens, extended, ends_token)

        bonus = np.broadcast_to(beam.bonus[:, :, None] + self.settings.insertion_score, extended.shape)
        if self.settings.lm_weight:
            scores = self._scorer.score(beam.state[:, :, None], tokens[:, None])
            bonus = bonus + self.settings.lm_weight * scores
        candidates = np.concatenate(
            [self._merge(ends_blank, ends_token) + beam.bonus, (extended + bonus).reshape(len(frame), -1)], axis=1
        )
        chosen, alive = self._choose(candidates)
        stayed = beam.replaced(ends_blank=ends_blank, ends_token=ends_token)
        return self._assemble(stayed, tokens, extended, bonus, chosen=chosen, alive=alive)

    def _move_to_known(
        self, beam: _Beam, tokens: NDArray, extended: NDArray[np.float64], ends_token: NDArray[np.float64]
    ) -> None:
        """Add extensions that are themselves in the beam to what stands there."""
        row, parent, child = np.nonzero(beam.parent[:, None] == beam.hash[:, :, None])
        columns = np.full((len(tokens), self.vocabulary), -1)
        np.put_along_axis(columns, tokens, np.arange(tokens.shape[1])[None], axis=1)
        column = columns[row, beam.last[row, child]]
        row, parent, child, column = (index[column >= 0] for index in (row, parent, child, column))
        ends_token[row, child] = self._merge(ends_token[row, child], extended[row, parent, column])
        extended[row, parent, column] = -np.inf

    def _choose(self, candidates: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the places of the best of candidates (B, C), and which of those are hypotheses at all."""
        size = min(self.settings.beam_size, candidates.shape[1])
        chosen = np.argpartition(-candidates, size - 1, axis=1)[:, :size]
        scores = np.take_along_axis(candidates, chosen, axis=1)
        worst = scores.max(axis=1, keepdims=True) - self.settings.beam_threshold
        return chosen, (scores >= worst) & (scores > -np.inf)

    def _assemble(
        self,
        stayed: _Beam,
        tokens: NDArray,
        extended: NDArray[np.float64],
        bonus: NDArray[np.float64],
        *,
        chosen: NDArray[np.int64],
        alive: NDArray[np.bool_],
    ) -> tuple[_Beam, NDArray, NDArray]:
        """Gather the chosen hypotheses: the first are those that stayed, the others were extended."""
        row, width = np.arange(len(chosen))[:, None], stayed.state.shape[1]
        stays = chosen < width
        extension = np.where(stays, 0, chosen - width)
        parents = np.where(stays, chosen, extension // tokens.shape[1])
        column = extension % tokens.shape[1]
        appended = np.where(stays, BLANK, tokens[row, column])
        old = stayed.rows((row, parents))
        state = old.state
        if self.settings.lm_weight:
            state = state.copy()
            state[~stays] = self._scorer.advance(state[~stays], appended[~stays])
        hashes = np.where(stays, old.hash, old.hash * _HASH_FACTOR + appended.astype(np.uint64))
        beam = _Beam(
            ends_blank=np.where(stays & alive, old.ends_blank, -np.inf),
            ends_token=np.where(alive, np.where(stays, old.ends_token, extended[row, parents, column]), -np.inf),
            bonus=np.where(stays, old.bonus, bonus[row, parents, column]),
            last=np.where(stays, old.last, appended),
            state=state,
            hash=np.where(alive, hashes, np.uint64(_DEAD)),
            parent=np.where(alive, np.where(stays, old.parent, old.hash), np.uint64(_NO_PARENT)),
        )
        return beam, parents, appended

    @property
    def _merge(self) -> Callable[[NDArray, NDArray], NDArray]:
        return np.logaddexp if self.settings.log_add else np.maximum


@dataclass
class _Beam:
    """Hypotheses, (B, K) each. A place can be empty: both its probabilities are then zero."""

    ends_blank: NDArray[np.float64]
    """Log-probability of the alignments that end in the blank."""
    ends_token: NDArray[np.float64]
    """Of those that end in the last token."""
    bonus: NDArray[np.float64]
    """Weighted language model score and insertion score of all tokens."""
    last: NDArray[np.int64]
    """The last token; the blank for the empty sequence."""
    state: NDArray[np.int64]
    """Of the language model."""
    hash: NDArray[np.uint64]
    """Names the token sequence."""
    parent: NDArray[np.uint64]
    """Names it without its last token."""

    @classmethod
    def initial(cls, num: int, *, state: int) -> Self:
        zeros = np.zeros((num, 1))
        index = zeros.astype(np.int64)
        hashes = (np.full((num, 1), name, dtype=np.uint64) for name in (_EMPTY_HASH, _NO_PARENT))
        return cls(zeros, zeros - np.inf, zeros, index + BLANK, index + state, *hashes)

    def rows(self, index: object) -> _Beam:
        return _Beam(*(array[index] for array in vars(self).values()))

    def replaced(self, **arrays: NDArray) -> _Beam:
        return replace(self, **arrays)


def _likeliest(frame: NDArray[np.float64], num: int | None) -> NDArray[np.int64]:
    """Return the (B, S) likeliest tokens of a frame (B, V), the blank not counted, in no order."""
    count = frame.shape[1] - BLANK - 1
    if num is None or num >= count:
        return np.broadcast_to(np.arange(BLANK + 1, count + 1), (len(frame), count))
    return np.argpartition(-frame[:, BLANK + 1 :], num - 1, axis=1)[:, :num] + BLANK + 1


def _trace_back(trace: list[tuple[NDArray, NDArray]], best: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """Return each utterance's tokens from the parents and appended tokens of every frame, longest utterance first."""
    appended = np.full((len(best), len(trace)), BLANK)
    place = best.copy()
    for frame in reversed(range(len(trace))):
        parents, tokens = trace[frame]
        row = np.arange(len(parents))
        appended[row, frame] = tokens[row, place[row]]
        place[row] = parents[row, place[row]]
    return [tuple(line[line != BLANK].tolist()) for line in appended]
