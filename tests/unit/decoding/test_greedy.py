"""Greedy search against a loop over one utterance."""

from __future__ import annotations

import pytest
import torch

from asr_distill.decoding.greedy import advance, greedy_search, initial_state
from asr_distill.models.transducer import BLANK


@torch.inference_mode()
def slow_greedy(model, states, *, max_symbols):
    """Transcribe one utterance (N, D), running the predictor over the whole transcript at every node."""
    tokens, score, frames = [], 0.0, []
    for frame, state in enumerate(states):
        for emitted in range(max_symbols + 1):
            predicted = model.predictor(torch.tensor([tokens], dtype=torch.long))[0, -1]
            logits = model.joint(model.joint.encoder(state), model.joint.predictor(predicted))
            log_probs = logits.double().log_softmax(dim=-1)
            token = BLANK if emitted == max_symbols else int(log_probs.argmax())
            score += float(log_probs[token])
            if token == BLANK:
                break
            tokens.append(token)
            frames.append(frame)
    return tuple(tokens), score, tuple(frames)


@pytest.mark.parametrize("max_symbols", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_equals_a_loop_over_one_utterance(talking_model, random_states, seed, max_symbols):
    model = talking_model(seed=seed)
    states, lengths = random_states([7, 3, 11, 1], seed=seed)
    found = greedy_search(model, states, lengths, max_symbols=max_symbols)
    for hypothesis, row, length in zip(found, states, lengths, strict=True):
        tokens, score, frames = slow_greedy(model, row[:length], max_symbols=max_symbols)
        assert hypothesis.tokens == tokens
        assert hypothesis.frames == frames
        assert hypothesis.score == pytest.approx(score, rel=1e-4, abs=1e-4)
    assert any(hypothesis.tokens for hypothesis in found)


@pytest.mark.parametrize("max_symbols", [1, 3])
def test_a_model_that_never_stops_is_stopped(talking_model, random_states, max_symbols):
    model = talking_model(blank=-1e3)
    states, lengths = random_states([5, 2])
    found = greedy_search(model, states, lengths, max_symbols=max_symbols)
    assert [len(hypothesis.tokens) for hypothesis in found] == [5 * max_symbols, 2 * max_symbols]
    assert all(BLANK not in hypothesis.tokens for hypothesis in found)
    expected = [frame for frame in range(5) for _ in range(max_symbols)]
    assert list(found[0].frames) == expected


def test_a_silent_model_says_nothing(talking_model, random_states):
    (hypothesis,) = greedy_search(talking_model(blank=1e3), *random_states([5]), max_symbols=4)
    assert hypothesis.tokens == ()
    assert hypothesis.score == pytest.approx(0.0, abs=1e-6)


def test_batch_and_single_utterances_agree(talking_model, random_states):
    model = talking_model(seed=2)
    states, lengths = random_states([6, 1, 9, 4], seed=3)
    together = greedy_search(model, states, lengths, max_symbols=3)
    for index, hypothesis in enumerate(together):
        (alone,) = greedy_search(model, states[[index]], lengths[[index]], max_symbols=3)
        assert alone.tokens == hypothesis.tokens
        assert alone.frames == hypothesis.frames
        assert alone.score == pytest.approx(hypothesis.score, rel=1e-5, abs=1e-5)


def test_search_goes_on_where_it_stopped(talking_model, random_states):
    model = talking_model(seed=4)
    states, lengths = random_states([8, 6], seed=4)
    whole = greedy_search(model, states, lengths, max_symbols=2)
    state = initial_state(model, batch=2)
    heard = [0, 0]
    for sizes in ([3, 1], [1, 2], [4, 3]):
        piece = torch.full((2, 4, states.shape[2]), 1e3)
        for row, size in enumerate(sizes):
            piece[row, :size] = states[row, heard[row] : heard[row] + size]
            heard[row] += size
        advance(model, piece, torch.tensor(sizes), state, max_symbols=2)
    for found, expected in zip(state.hypotheses(), whole, strict=True):
        assert (found.tokens, found.frames) == (expected.tokens, expected.frames)
        assert found.score == pytest.approx(expected.score, rel=1e-5)
        assert max(found.frames) > 3  # tokens of the last piece are counted from the beginning
