"""Decoding as speech arrives."""

from __future__ import annotations

import itertools

import pytest
import torch

from asr_distill.decoding.decode import transcribe
from asr_distill.decoding.streaming import StreamingDecoder
from asr_distill.experiment import Decoding

STREAMING = {"streaming": True, "right_context": 0, "left_context": 4}


def speech(frames, *, seed=0):
    return 3 * torch.randn(frames, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 5, 7, 64])
@pytest.mark.parametrize("frames", [1, 40, 65, 66])
def test_any_chunk_size_gives_the_tokens_of_the_whole_utterance(talking_model, chunk, frames):
    model = talking_model(seed=3, **STREAMING)
    features = speech(frames)
    settings = Decoding(max_symbols_per_frame=3)
    (whole,) = transcribe(model, features[None], torch.tensor([frames]), settings=settings)
    decoder = StreamingDecoder(model, max_symbols=3)
    chunks = features.split(chunk)
    partial = [decoder.accept(piece, last=i == len(chunks) - 1) for i, piece in enumerate(chunks)]
    assert partial[-1] == whole.tokens
    assert all(later[: len(earlier)] == earlier for earlier, later in itertools.pairwise(partial))
    hypothesis = decoder.hypothesis()
    assert (hypothesis.tokens, hypothesis.frames) == (whole.tokens, whole.frames)
    assert hypothesis.score == pytest.approx(whole.score, rel=1e-4, abs=1e-3)
    if frames > 60:
        assert len(set(whole.tokens)) > 2
        assert chunk == 64 or partial[len(partial) // 2]  # tokens come while speech is still arriving


def test_the_last_chunk_may_be_empty(talking_model):
    model = talking_model(seed=3, **STREAMING)
    features = speech(40)
    one, two = (StreamingDecoder(model, max_symbols=3) for _ in range(2))
    expected = one.accept(features, last=True)
    two.accept(features)
    assert two.accept(features[:0], last=True) == expected


def test_a_model_that_needs_the_future_is_refused(talking_model):
    with pytest.raises(ValueError, match="only a streaming encoder decodes chunk by chunk"):
        StreamingDecoder(talking_model(), max_symbols=3)
