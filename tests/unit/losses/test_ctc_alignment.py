"""The best CTC alignment against enumeration, and against torchaudio's."""

from __future__ import annotations

import itertools

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_distill.losses.ctc_alignment import ctc_best_alignment
from asr_distill.losses.joint import LatticeLengths

VOCABULARY = 3


def lengths(frames, labels):
    return LatticeLengths(frames=torch.tensor(frames), labels=torch.tensor(labels))


def positions(tokens):
    """Return which label each frame emits, -1 for a blank, of an alignment written as one token per frame."""
    found, position = [], -1
    for before, token in zip((0, *tokens), tokens, strict=False):
        position += token not in (0, before)
        found.append(position if token else -1)
    return found


def slow_alignment(scores, labels):
    """Return the best alignment of one utterance with scores (T, V), and its score; None where there is none."""
    best = None
    for tokens in itertools.product(range(VOCABULARY), repeat=len(scores)):
        if [token for token, _ in itertools.groupby(tokens) if token] == labels:
            score = sum(scores[t, k].item() for t, k in enumerate(tokens))
            if best is None or score > best[1]:
                best = positions(tokens), score
    return best


def score_of(alignment, scores, labels):
    return sum(scores[t, 0 if u < 0 else labels[u]].item() for t, u in enumerate(alignment))


UTTERANCES = st.lists(
    st.tuples(st.integers(1, 5), st.lists(st.integers(1, VOCABULARY - 1), max_size=4)), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), UTTERANCES, st.booleans())
def test_no_alignment_is_better(seed, utterances, ties):
    frames, labels = zip(*utterances, strict=True)
    generator = torch.Generator().manual_seed(seed)
    shape = (len(frames), max(frames) + 1, VOCABULARY)
    scores = (
        torch.randint(-1, 1, shape, generator=generator).float() if ties else torch.randn(shape, generator=generator)
    )
    padded = torch.full((len(frames), 5), -1)
    for b, tokens in enumerate(labels):
        padded[b, : len(tokens)] = torch.tensor(tokens)
        scores[b, frames[b] :] = 1e4
    found = ctc_best_alignment(
        scores, labels=padded, lengths=lengths(frames, [len(tokens) for tokens in labels])
    ).tolist()
    for b, (count, tokens) in enumerate(utterances):
        expected = slow_alignment(scores[b, :count], tokens)
        assert set(found[b][count:]) == {-1}
        if expected is None:
            assert set(found[b]) == {-1}
            continue
        emitted = [0 if u < 0 else tokens[u] for u in found[b][:count]]
        assert positions(emitted) == found[b][:count]  # it is an alignment
        assert [token for token, _ in itertools.groupby(emitted) if token] == tokens
        assert score_of(found[b][:count], scores[b], tokens) == pytest.approx(expected[1], abs=1e-5)
        assert ties or found[b][:count] == expected[0]


@pytest.mark.parametrize("seed", range(3))
def test_long_utterances_equal_torchaudio(seed):
    generator = torch.Generator().manual_seed(seed)
    frames, counts = [80, 53, 61], [20, 7, 30]
    log_probs = torch.randn(3, 80, 10, generator=generator).log_softmax(dim=-1)
    labels = torch.randint(1, 10, (3, 30), generator=generator)
    found = ctc_best_alignment(log_probs, labels=labels, lengths=lengths(frames, counts))
    for b, (t, u) in enumerate(zip(frames, counts, strict=True)):
        tokens, _ = torchaudio.functional.forced_align(log_probs[b : b + 1, :t], labels[b : b + 1, :u])
        assert found[b, :t].tolist() == positions(tokens[0].tolist())


def test_of_equally_likely_alignments_the_last_label_begins_first():
    found = ctc_best_alignment(
        torch.zeros(2, 5, 3), labels=torch.tensor([[1, 2], [1, 1]]), lengths=lengths([5, 5], [2, 2])
    )
    assert found.tolist() == [[0, 1, 1, 1, 1], [0, -1, 1, 1, 1]]


def test_bfloat16_scores_are_added_in_float32():
    generator = torch.Generator().manual_seed(3)
    log_probs = torch.randn(1, 200, 5, generator=generator).log_softmax(dim=-1).bfloat16()
    labels, sizes = torch.randint(1, 5, (1, 40), generator=generator), lengths([200], [40])
    found = ctc_best_alignment(log_probs, labels=labels, lengths=sizes)
    assert torch.equal(found, ctc_best_alignment(log_probs.float(), labels=labels, lengths=sizes))
