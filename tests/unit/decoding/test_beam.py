"""Beam search against the exact score of every label sequence."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from asr_distill.decoding.beam import beam_search
from asr_distill.decoding.greedy import greedy_search
from asr_distill.models.transducer import BLANK


@torch.inference_mode()
def exact_score(model, states, tokens, *, max_symbols):
    """Return the log of the summed probability of every alignment with at most `max_symbols` tokens in a frame."""
    predicted = model.predictor(torch.tensor([tokens], dtype=torch.long))[0]
    encoder, predictor = model.joint.encoder(states), model.joint.predictor(predicted)
    log_probs = model.joint(encoder[:, None], predictor[None]).double().log_softmax(dim=-1)
    sums = [0.0] + [-math.inf] * len(tokens)  # by tokens emitted before the frame
    for frame in log_probs.tolist():
        after = [[] for _ in sums]
        for start, score in enumerate(sums):
            for end in range(start, min(start + max_symbols, len(tokens)) + 1):
                emitted = sum(frame[u][tokens[u]] for u in range(start, end))
                after[end].append(score + emitted + frame[end][BLANK])
        sums = [torch.tensor(scores, dtype=torch.float64).logsumexp(dim=0).item() for scores in after]
    return sums[-1]


def every_sequence(*, vocabulary, longest):
    for length in range(longest + 1):
        yield from itertools.product(range(BLANK + 1, vocabulary), repeat=length)


@pytest.mark.parametrize(("frames", "max_symbols"), [(1, 3), (2, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_without_limit_finds_the_best_sequence_and_its_exact_score(
    talking_model, random_states, frames, max_symbols, seed
):
    model = talking_model(seed=seed, vocabulary=3, sharpness=3.0)
    states, lengths = random_states([frames], seed=seed)
    (found,) = beam_search(model, states, lengths, beam_size=200, max_symbols=max_symbols)
    scores = {
        tokens: exact_score(model, states[0, :frames], tokens, max_symbols=max_symbols)
        for tokens in every_sequence(vocabulary=3, longest=frames * max_symbols)
    }
    best = max(scores, key=scores.get)
    assert found.tokens == best
    assert found.score == pytest.approx(scores[best], abs=1e-5)


@pytest.mark.parametrize("beam_size", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_never_claims_more_than_its_sequence_is_worth(talking_model, random_states, beam_size, seed):
    model = talking_model(seed=seed)
    states, lengths = random_states([5, 8], seed=seed)
    for row, length, found in zip(
        states, lengths, beam_search(model, states, lengths, beam_size=beam_size, max_symbols=3), strict=True
    ):
        exact = exact_score(model, row[:length], found.tokens, max_symbols=3)
        assert found.score <= exact + 1e-5
        assert math.isfinite(found.score)


@pytest.mark.parametrize("beam_size", [1, 3, 8])
@pytest.mark.parametrize("seed", range(3))
def test_batch_and_single_utterances_agree(talking_model, random_states, beam_size, seed):
    model = talking_model(seed=seed, sharpness=5.0)
    states, lengths = random_states([6, 1, 9, 4], seed=seed)
    together = beam_search(model, states, lengths, beam_size=beam_size, max_symbols=3)
    for index, hypothesis in enumerate(together):
        (alone,) = beam_search(model, states[[index]], lengths[[index]], beam_size=beam_size, max_symbols=3)
        assert alone.tokens == hypothesis.tokens
        assert alone.score == pytest.approx(hypothesis.score, rel=1e-5, abs=1e-5)


def test_no_more_tokens_than_allowed(talking_model, random_states):
    model = talking_model(seed=0)
    states, lengths = random_states([5, 2])
    counts = {}
    for max_symbols in (1, 2, 9):
        found = beam_search(model, states, lengths, beam_size=4, max_symbols=max_symbols)
        counts[max_symbols] = [len(hypothesis.tokens) for hypothesis in found]
        assert all(count <= max_symbols * length for count, length in zip(counts[max_symbols], [5, 2], strict=True))
        assert all(BLANK not in hypothesis.tokens for hypothesis in found)
    assert counts[9][0] > 2 * 5  # what the bound kept away


def test_the_beam_keeps_an_alignment_that_is_likelier_than_all_others_together(talking_model, random_states):
    """Whatever its size: at every node, the alignment's start is likelier than everything else in the beam."""
    transcribed = 0
    for seed in range(30):
        model = talking_model(seed=seed, sharpness=60.0, blank=30.0)
        states, lengths = random_states([4], seed=seed)
        (greedy,) = greedy_search(model, states, lengths, max_symbols=3)
        if greedy.score < math.log(0.6):
            continue
        for beam_size in (1, 4):
            (beam,) = beam_search(model, states, lengths, beam_size=beam_size, max_symbols=3)
            assert beam.tokens == greedy.tokens
            assert beam.score >= greedy.score - 1e-6
        transcribed += bool(greedy.tokens)
    assert transcribed


def test_a_beam_finds_what_greedy_search_overlooks(talking_model, random_states):
    better = 0
    for seed in range(10):
        model = talking_model(seed=seed, sharpness=5.0)
        states, lengths = random_states([6], seed=seed)
        (greedy,) = greedy_search(model, states, lengths, max_symbols=3)
        (beam,) = beam_search(model, states, lengths, beam_size=30, max_symbols=3)
        exact = exact_score(model, states[0, :6], greedy.tokens, max_symbols=3)
        assert beam.score >= exact - 1e-2
        better += beam.score > exact + 0.1
    assert better
