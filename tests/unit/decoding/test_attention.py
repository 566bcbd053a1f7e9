"""Greedy search with an attention decoder, against whole transcripts read again at every step."""

from __future__ import annotations

import pytest
import torch

from asr_distill.decoding.attention import attention_search
from asr_distill.experiment import DecoderSize
from asr_distill.models.attention_decoder import AttentionDecoder

VOCABULARY, ENCODER_DIM = 7, 6


def decoder(seed, *, end=0.0, blank=0.0):
    """Return a random decoder that likes to end, or to emit blanks, more or less."""
    torch.manual_seed(seed)
    size = DecoderSize(layers=2, heads=2, dim=8, feed_forward=12)
    made = AttentionDecoder(size, vocabulary=VOCABULARY, encoder_dim=ENCODER_DIM).double().eval()
    with torch.no_grad():
        made.output.weight *= 4
        made.output.bias[-1], made.output.bias[0] = end, blank
    return made


def speech(*frames):
    generator = torch.Generator().manual_seed(9)
    states = torch.randn(len(frames), max(frames) + 1, ENCODER_DIM, generator=generator, dtype=torch.float64)
    return 3 * states, torch.tensor(frames)


@torch.inference_mode()
def slow_search(model, states, *, max_tokens):
    """Return tokens and score for one utterance (N, D), and whether it ended by itself."""
    tokens, score = [], 0.0
    while len(tokens) < max_tokens:
        labels, counts = torch.tensor([tokens], dtype=torch.long), torch.tensor([len(tokens)])
        row = model(states[None], torch.tensor([len(states)]), labels, counts)[0, -1].log_softmax(dim=0)
        best = max(range(1, VOCABULARY + 1), key=lambda k: row[k].item())
        score += row[best].item()
        if best == VOCABULARY:
            return tokens, score, True
        tokens.append(best)
    return tokens, score, False


@pytest.mark.parametrize("seed", [0, 2, 5, 6])
def test_the_search_equals_reading_everything_again_at_every_step(seed):
    model = decoder(seed, end=0.6)
    states, lengths = speech(5, 1, 3, 6, 2, 4)
    found = attention_search(model, states, lengths, max_tokens=12)
    ends = []
    for hypothesis, utterance, count in zip(found, states, lengths.tolist(), strict=True):
        tokens, score, ended = slow_search(model, utterance[:count], max_tokens=12)
        assert hypothesis.tokens == tuple(tokens)
        assert hypothesis.score == pytest.approx(score, abs=1e-5)
        ends.append(len(tokens) if ended else None)
    assert len(set(ends)) > 1  # they do not all stop together


def test_it_stops_when_all_have_ended():
    model = decoder(0, end=100.0)
    found = attention_search(model, *speech(3, 2), max_tokens=10**6)
    assert [hypothesis.tokens for hypothesis in found] == [(), ()]
    assert found[0].score == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_it_stops_after_so_many_tokens_and_chooses_no_blank(max_tokens):
    model = decoder(0, end=-100.0, blank=100.0)
    for hypothesis in attention_search(model, *speech(3, 2), max_tokens=max_tokens):
        assert len(hypothesis.tokens) == max_tokens
        assert 0 not in hypothesis.tokens
        assert hypothesis.score <= -50 * max_tokens
