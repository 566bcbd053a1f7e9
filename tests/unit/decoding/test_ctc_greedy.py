"""Greedy search of CTC outputs, and the settings of beam searches."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr_distill.decoding.ctc import BeamSettings, greedy
from asr_distill.decoding.hypothesis import Hypothesis
from asr_distill.text.tokenizer import BLANK


def loop(log_probs: torch.Tensor) -> Hypothesis:
    """Search one utterance (N, V), a frame at a time."""
    tokens, last, score = [], BLANK, 0.0
    for frame in log_probs.tolist():
        token = frame.index(max(frame))
        if token not in (last, BLANK):
            tokens.append(token)
        last = token
        score += frame[token]
    return Hypothesis(tuple(tokens), score)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(2, 4), st.integers(0, 2**31))
def test_greedy_search_is_a_plain_loop_over_frames(lengths, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(len(lengths), max(lengths) + 1, vocabulary, generator=generator).log_softmax(dim=-1)
    for row, length in zip(log_probs, lengths, strict=True):
        row[length:] = torch.randn(row[length:].shape, generator=generator) + 5  # what stands behind counts for nothing
    found = greedy(log_probs, torch.tensor(lengths))
    for hypothesis, row, length in zip(found, log_probs, lengths, strict=True):
        expected = loop(row[:length])
        assert hypothesis.tokens == expected.tokens
        assert hypothesis.score == pytest.approx(expected.score, abs=1e-5)


def test_repeats_collapse_unless_a_blank_is_between():
    best = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 0], [0, 2, 1, 2, 0, 2, 2, 1]])
    log_probs = torch.nn.functional.one_hot(best, 3).float().log()
    assert greedy(log_probs, torch.tensor([8, 6])) == [Hypothesis((1, 1, 2), 0.0), Hypothesis((2, 1, 2, 2), 0.0)]
    assert greedy(log_probs[:0], torch.tensor([], dtype=torch.long)) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beam_size", 0),
        ("beam_size_token", 0),
        ("beam_threshold", 0.0),
        ("beam_threshold", math.nan),
        ("lm_weight", -0.5),
        ("lm_weight", math.inf),
        ("insertion_score", math.nan),
    ],
)
def test_impossible_settings_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}: {value}"):
        BeamSettings(**{name: value})
